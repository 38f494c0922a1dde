package schemas

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// CallRecord is a call as the API reports it. Times are Unix seconds; 0 means not
// given. Schema: record.schema.json.
type CallRecord struct {
	CallID     string   `json:"CallId"`
	Caller     string   `json:"Caller_Account"`
	MediaType  string   `json:"MediaType"` // Audio, Video; an open set
	CallType   string   `json:"CallType"`  // SingleCall, MultiCall; an open set
	Start      int64    `json:"StartTime"`
	Accept     int64    `json:"AcceptTime"` // 0: never answered
	End        int64    `json:"EndTime"`
	Result     string   `json:"CallResult"`         // NormalEnd, Cancel, …; an open set
	Callees    []string `json:"CalleeList_Account"` // the API's samples list the caller too
	RoomID     string   `json:"RoomId"`
	RoomIDType int      `json:"RoomIdType"` // 1: digits, 2: string
}

// UnmarshalJSON accepts numbers for accounts and ids, of which it keeps all digits,
// and strings for times. Unknown fields are ignored, null means absent, and of two
// fields with one name the last one counts.
func (r *CallRecord) UnmarshalJSON(b []byte) error {
	if isNull(b) {
		return nil
	}
	if b[0] != '{' {
		return errors.New("call record is not an object")
	}
	*r = CallRecord{}
	var err error
	forEachMember(string(b), func(name, value string) bool { // one copy, of which all texts are parts
		err = r.set(name, value)
		return err == nil
	})
	return err
}

func (r *CallRecord) set(name, value string) error {
	if isNull(value) {
		return nil
	}
	var text *string
	var number *int64
	switch name {
	case "CallId":
		text = &r.CallID
	case "Caller_Account":
		text = &r.Caller
	case "MediaType":
		text = &r.MediaType
	case "CallType":
		text = &r.CallType
	case "CallResult":
		text = &r.Result
	case "RoomId":
		text = &r.RoomID
	case "StartTime":
		number = &r.Start
	case "AcceptTime":
		number = &r.Accept
	case "EndTime":
		number = &r.End
	case "RoomIdType":
		var kind int64
		number = &kind
		defer func() { r.RoomIDType = int(kind) }()
	case "CalleeList_Account":
		return r.setCallees(value)
	default:
		return nil
	}
	s, ok := scalarText(value)
	if !ok {
		return fmt.Errorf("%s of the call record is neither string nor number", name)
	}
	if text != nil {
		*text = s
		return nil
	}
	if s == "" {
		return nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return fmt.Errorf("%s of the call record is not an integer", name)
	}
	*number = n
	return nil
}

func (r *CallRecord) setCallees(value string) error {
	if value[0] != '[' {
		return errors.New("CalleeList_Account of the call record is not an array")
	}
	r.Callees = make([]string, 0, min(1+strings.Count(value, ","), fewCallees))
	for i := skipSpace(value, 1); value[i] != ']'; i = skipSpace(value, i) {
		if value[i] == ',' {
			i = skipSpace(value, i+1)
		}
		end := endOfValue(value, i)
		callee, ok := scalarText(value[i:end])
		if !ok {
			return errors.New("CalleeList_Account of the call record contains a value that is neither string nor number")
		}
		r.Callees = append(r.Callees, callee)
		i = end
	}
	return nil
}
