package session

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// errNotJoined means that there is no generation to send a heartbeat for.
var errNotJoined = errors.New("not a member of the group yet")

// Heartbeat sends a heartbeat of this member beside the client's own, because the
// client does not report what the broker responds to those. It returns the
// generation it was sent for, and the broker's error if it is not nil.
func (s *Session) Heartbeat(ctx context.Context) (generation int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SessionTimeout/2)
	defer cancel()
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group = s.cfg.Group
	req.MemberID, req.Generation = s.cl.GroupMetadata()
	if req.MemberID == "" || req.Generation < 0 {
		return -1, errNotJoined
	}
	resp, err := req.RequestWith(ctx, s.admin)
	if err != nil {
		return req.Generation, err
	}
	return req.Generation, kerr.ErrorForCode(resp.ErrorCode)
}
