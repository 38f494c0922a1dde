package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// members returns the members of the group that are the instance. There can be two
// for a moment, or none.
func (i *instance) members(ctx context.Context) ([]kadm.DescribedGroupMember, error) {
	groups, err := i.env.admin.DescribeGroups(ctx, i.names.group)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(groups[i.names.group].Members, func(m kadm.DescribedGroupMember) bool {
		return !strings.HasPrefix(m.ClientID, i.name+"@")
	}), nil
}

// removeFromGroup removes the instance's member from the group, as another client
// can. The instance does not notice before its next heartbeat.
func (i *instance) removeFromGroup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	members, err := i.members(ctx)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = i.names.group
	for _, m := range members {
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = m.MemberID
		req.Members = append(req.Members, member)
	}
	if len(req.Members) == 0 {
		return fmt.Errorf("%s is no member of the group", i.name)
	}
	_, err = req.RequestWith(ctx, i.env.client)
	return err
}
