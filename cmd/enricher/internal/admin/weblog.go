package admin

import (
	"bytes"
	"context"
	"log/slog"

	"go.uber.org/zap"
)

// webLog is an slog.Handler that logs the problems that the exporter toolkit has with
// its configuration file.
type webLog struct{ log *zap.Logger }

// Enabled implements slog.Handler.
func (webLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements slog.Handler. The toolkit's only attribute is the error.
func (h webLog) Handle(_ context.Context, r slog.Record) error {
	fields := []zap.Field{zap.String("problem", r.Message)}
	r.Attrs(func(a slog.Attr) bool {
		fields = append(fields, zap.String(a.Key, a.Value.String()))
		return true
	})
	h.log.Warn("web configuration cannot be used", fields...)
	return nil
}

// WithAttrs implements slog.Handler.
func (h webLog) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements slog.Handler.
func (h webLog) WithGroup(string) slog.Handler { return h }

// errorLog logs what net/http reports. Handshakes that clients do not complete, such as
// those of enricher health, which tries plain HTTP first, say nothing about the server.
type errorLog struct{ log *zap.Logger }

// Write implements io.Writer.
func (l errorLog) Write(line []byte) (int, error) {
	if !bytes.HasPrefix(line, []byte("http: TLS handshake error")) {
		l.log.Warn("admin server failed", zap.ByteString("problem", bytes.TrimSpace(line)))
	}
	return len(line), nil
}
