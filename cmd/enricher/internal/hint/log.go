package hint

import (
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Core returns a core of a log that adds the advice for an error to the entry that
// has it. The libraries log facts only.
func Core(core zapcore.Core) zapcore.Core { return advising{core} }

type advising struct{ zapcore.Core }

// With implements zapcore.Core.
func (c advising) With(fields []zapcore.Field) zapcore.Core { return advising{c.Core.With(fields)} }

// Check implements zapcore.Core.
func (c advising) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements zapcore.Core.
func (c advising) Write(e zapcore.Entry, fields []zapcore.Field) error {
	const key = "hint"
	if !slices.ContainsFunc(fields, func(f zapcore.Field) bool { return f.Key == key }) {
		for _, f := range fields {
			err, ok := f.Interface.(error)
			if !ok {
				continue
			}
			if advice := For(Explain(err, "")); advice != "" {
				fields = append(slices.Clip(fields), zap.String(key, advice))
				break
			}
		}
	}
	return c.Core.Write(e, fields)
}
