package replay

import (
	"fmt"
	"strconv"
	"strings"
)

// Position is where a letter stands in the dead-letter topic.
type Position struct {
	Partition int32
	Offset    int64
}

func (r Position) String() string { return fmt.Sprintf("%d:%d", r.Partition, r.Offset) }

// ParsePosition is the inverse of String.
func ParsePosition(s string) (Position, error) {
	p, o, _ := strings.Cut(s, ":")
	partition, err := strconv.ParseInt(p, 10, 32)
	offset, offsetErr := strconv.ParseInt(o, 10, 64)
	if err != nil || offsetErr != nil || partition < 0 || offset < 0 {
		return Position{}, fmt.Errorf("%q is no letter: give partition and offset, such as 0:17", s)
	}
	return Position{int32(partition), offset}, nil
}
