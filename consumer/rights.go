package consumer

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/producer"
)

// denied names the right whose want ended a session, which no new one overcomes.
// Looking for a coordinator, as is done before the start, takes less.
func (c *Consumer) denied(err error) error {
	const grant = "grant it: kafka-acls --add --allow-principal User:… "
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return &fatalError{fmt.Errorf("no right to join group %q; "+grant+"--operation Read --group %s: %w", c.cfg.Group, c.cfg.Group, err)}
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		id := producer.TransactionalID(c.cfg.Group, c.cfg.Instance)
		return &fatalError{fmt.Errorf("no right to write with transactional id %q; "+grant+"--operation Describe --operation Write --transactional-id %s: %w", id, id, err)}
	}
	return err
}
