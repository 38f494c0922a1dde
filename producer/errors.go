package producer

import (
	"fmt"
	"strings"
)

// NotAuthorizedError reports that Kafka denied a request because an ACL is
// missing. Operations and resource type have the names that kafka-acls uses.
type NotAuthorizedError struct {
	Operations   []string // such as Read, Write, Describe, DescribeConfigs
	ResourceType string   // topic, group or transactional-id
	Resource     string   // its name
	Err          error    // what the broker returned
}

func (e *NotAuthorizedError) Error() string {
	return fmt.Sprintf("missing permission %s on %s %q: %v", strings.Join(e.Operations, ", "), e.ResourceType, e.Resource, e.Err)
}

func (e *NotAuthorizedError) Unwrap() error { return e.Err }
