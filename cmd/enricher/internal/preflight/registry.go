package preflight

import (
	"context"
	"errors"

	"enricher/cmd/enricher/internal/hint"
	"enricher/cmd/enricher/internal/registry"
)

// registry looks the schema up, as the service does when it starts. If it is not
// registered, it finds out whether it could be.
func (r *run) registry(ctx context.Context) {
	if r.cfg.Registry == nil {
		return
	}
	subject := r.cfg.Registry.Subject()
	var found registry.Schema
	err := r.step(ctx, func(ctx context.Context) (err error) {
		found, err = r.cfg.Registry.Find(ctx)
		var missing *registry.NotRegisteredError
		if errors.As(err, &missing) {
			if other := r.cfg.Registry.Check(ctx); other != nil {
				return other
			}
		}
		return err
	})
	if err == nil {
		err = r.cfg.Identify(found)
	}
	if err != nil {
		r.add(checkSchema, subject, Fatal, err.Error(), hint.For(hint.Explain(err, "")))
		return
	}
	r.ok(checkSchema, subject, "registered: %s", found)
}
