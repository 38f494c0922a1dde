package producer

import (
	"fmt"
	"strings"
)

// NotAuthorizedError means that Kafka denied a request because an ACL is missing.
// Operations and resource type are spelt as kafka-acls expects them.
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
