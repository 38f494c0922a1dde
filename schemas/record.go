package schemas

import (
	"errors"
	"fmt"
	"strconv"
)

// CallRecord is a call as the API reports it. Times are Unix seconds; 0: not given.
// Schema: record.schema.json.
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
	RoomIDType int      `json:"RoomIdType"` // 1: digits, 2: text
}

// UnmarshalJSON accepts numbers where accounts and ids are texts, keeping all
// their digits, and texts where times are numbers. Unknown fields are ignored,
// null is as good as absent, and of two fields of one name the last wins.
func (r *CallRecord) UnmarshalJSON(b []byte) error {
	if isNull(b) {
		return nil
	}
	if b[0] != '{' {
		return errors.New("a call record that is no object")
	}
	*r = CallRecord{}
	var failed error
	members(b, func(name, value []byte) bool {
		failed = r.set(string(name), value)
		return failed == nil
	})
	return failed
}

func (r *CallRecord) set(name string, value []byte) error {
	if isNull(value) {
		return nil
	}
	var texts *string
	var number *int64
	switch name {
	case "CallId":
		texts = &r.CallID
	case "Caller_Account":
		texts = &r.Caller
	case "MediaType":
		texts = &r.MediaType
	case "CallType":
		texts = &r.CallType
	case "CallResult":
		texts = &r.Result
	case "RoomId":
		texts = &r.RoomID
	case "StartTime":
		number = &r.Start
	case "AcceptTime":
		number = &r.Accept
	case "EndTime":
		number = &r.End
	case "RoomIdType":
		number = new(int64)
		defer func() { r.RoomIDType = int(*number) }()
	case "CalleeList_Account":
		return r.setCallees(value)
	default:
		return nil
	}
	s, ok := text(value)
	if !ok {
		return fmt.Errorf("%s of a call record is neither text nor number", name)
	}
	if texts != nil {
		*texts = s
		return nil
	}
	if s == "" {
		return nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return fmt.Errorf("%s of a call record is no whole number", name)
	}
	*number = n
	return nil
}

func (r *CallRecord) setCallees(value []byte) error {
	if value[0] != '[' {
		return errors.New("CalleeList_Account of a call record is no list")
	}
	r.Callees = nil
	for i := skipSpace(value, 1); value[i] != ']'; i = skipSpace(value, i) {
		if value[i] == ',' {
			i = skipSpace(value, i+1)
		}
		end := endOfValue(value, i)
		callee, ok := text(value[i:end])
		if !ok {
			return errors.New("CalleeList_Account of a call record holds what is neither text nor number")
		}
		r.Callees = append(r.Callees, callee)
		i = end
	}
	return nil
}
