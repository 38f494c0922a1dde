package replay

import (
	"fmt"
	"strconv"
	"strings"
)

// Ref is where a letter stands in the dead-letter topic.
type Ref struct {
	Partition int32
	Offset    int64
}

func (r Ref) String() string { return fmt.Sprintf("%d:%d", r.Partition, r.Offset) }

// ParseRef is the inverse of String.
func ParseRef(s string) (Ref, error) {
	p, o, _ := strings.Cut(s, ":")
	partition, err := strconv.ParseInt(p, 10, 32)
	offset, offsetErr := strconv.ParseInt(o, 10, 64)
	if err != nil || offsetErr != nil || partition < 0 || offset < 0 {
		return Ref{}, fmt.Errorf("%q is no letter: give partition and offset, such as 0:17", s)
	}
	return Ref{int32(partition), offset}, nil
}
