package watch

import (
	"context"
	"log/slog"
	"slices"
)

// routine are the messages of a Manager that say nothing new of a service: each
// start and each end has a line without them. The journal has them all.
var routine = []string{"generation begins", "worker ready", "settled", "slot held", "slot released", "shutdown begins"}

// brief is a slog.Handler that leaves routine out, so that a service which ends
// again and again does not fill a disk. The pool of a line is named "service", as in
// the lines that are not of a Manager.
type brief struct{ slog.Handler }

func (h brief) Handle(ctx context.Context, r slog.Record) error {
	if r.Level <= slog.LevelInfo && slices.Contains(routine, r.Message) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h brief) WithAttrs(attrs []slog.Attr) slog.Handler {
	attrs = slices.Clone(attrs)
	for i := range attrs {
		if attrs[i].Key == "pool" {
			attrs[i].Key = "service"
		}
	}
	return brief{h.Handler.WithAttrs(attrs)}
}

func (h brief) WithGroup(name string) slog.Handler { return brief{h.Handler.WithGroup(name)} }
