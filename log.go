package prefork

import (
	"context"
	"log/slog"
)

// changed tells of a change of state: one line to the log, one event to the observer.
func (m *Manager) changed(ev Event) {
	ctx := context.Background()
	level, msg, attrs := describe(ev)
	if m.events.Enabled(ctx, level) {
		m.events.LogAttrs(ctx, level, msg, attrs...)
	}
	if m.cfg.Observe != nil {
		m.flushLog()
		m.cfg.Observe(ev)
	}
}

// describe makes the log's line of an event.
func describe(ev Event) (slog.Level, string, []slog.Attr) {
	switch ev := ev.(type) {
	case StateEvent:
		attrs := workerAttrs(ev.Worker.Slot, ev.Worker.Generation, ev.Worker.PID)
		if ev.Worker.State == StateKilled {
			return slog.LevelWarn, "worker killed", append(attrs, slog.String("reason", ev.Reason.String()))
		}
		return slog.LevelInfo, "worker " + ev.Worker.State.String(), attrs
	case ExitEvent:
		attrs := append(workerAttrs(ev.Exit.Slot, ev.Exit.Generation, ev.Exit.PID), slog.String("reason", ev.Exit.Reason.String()),
			slog.String("status", ev.Exit.Status.String()), slog.Duration("uptime", ev.Exit.Uptime))
		if r := ev.Exit.Reason; r == ReasonFinished || r == ReasonStopped || r == ReasonRecycled {
			return slog.LevelInfo, "worker gone", attrs
		}
		return slog.LevelWarn, "worker gone", attrs
	case LeftoverEvent:
		level := slog.LevelInfo
		if ev.State == StateKilled {
			level = slog.LevelWarn
		}
		return level, "leftover processes " + ev.State.String(), workerAttrs(ev.Worker.Slot, ev.Worker.Generation, ev.Worker.PID)
	case GenerationEvent:
		return slog.LevelInfo, "generation begins", []slog.Attr{slog.Int("gen", ev.Generation), slog.Int("workers", ev.MaxWorkers)}
	case DelayEvent:
		return slog.LevelWarn, "slot waits before its next spawn", []slog.Attr{slog.Int("slot", ev.Slot), slog.Duration("for", ev.For)}
	case SpawnFailedEvent:
		return slog.LevelError, "spawn failed", []slog.Attr{slog.Int("slot", ev.Err.Slot), slog.Int("gen", ev.Err.Generation),
			slog.Any("err", ev.Err.Err), slog.Duration("retry", ev.Retry)}
	case SignalEvent:
		attrs := []slog.Attr{slog.String("signal", signalName(ev.Received)), slog.String("forward", signalName(ev.Sent))}
		if ev.Rolling {
			attrs = append(attrs, slog.Bool("rolling", true))
		}
		if ev.Interval > 0 {
			attrs = append(attrs, slog.Duration("interval", ev.Interval))
		}
		return slog.LevelInfo, "signal received", attrs
	case ResizeEvent:
		return slog.LevelInfo, "number of workers changed", []slog.Attr{slog.Int("from", ev.From), slog.Int("to", ev.To)}
	case ReloadFailedEvent:
		return slog.LevelError, "reload failed, the workers go on as they are", []slog.Attr{slog.Any("err", ev.Err)}
	case PausedEvent:
		return slog.LevelDebug, "worker paused", workerAttrs(ev.Worker.Slot, ev.Worker.Generation, ev.Worker.PID)
	case UpgradeEvent:
		return slog.LevelInfo, "upgrade begins", []slog.Attr{slog.Int("successor", ev.PID)}
	case UpgradedEvent:
		return slog.LevelInfo, "successor has taken over, this manager ends", []slog.Attr{slog.Int("successor", ev.PID)}
	case UpgradeFailedEvent:
		return slog.LevelError, "upgrade failed, this manager goes on", []slog.Attr{slog.Any("err", ev.Err)}
	case CrashLoopEvent:
		return slog.LevelError, "workers crash again and again, giving up", []slog.Attr{slog.Int("failures", ev.Failures), slog.Duration("within", ev.Window)}
	case RolledEvent:
		return slog.LevelInfo, "workers replaced", []slog.Attr{slog.Int("gen", ev.Generation)}
	case RollFailedEvent:
		return slog.LevelError, "generation given up, the workers before it go on", []slog.Attr{slog.Int("gen", ev.Generation),
			slog.Int("kept", ev.Kept), slog.Any("err", ev.Err)}
	}
	return slog.LevelInfo, ev.String(), nil
}

func workerAttrs(slot, gen, pid int) []slog.Attr {
	return append(make([]slog.Attr, 0, 6), slog.Int("slot", slot), slog.Int("gen", gen), slog.Int("pid", pid))
}

// attrs are what identifies a worker in the log, with more behind it.
func (c *child) attrs(more ...any) []any {
	return append([]any{"slot", c.Slot, "gen", c.Generation, "pid", c.PID}, more...)
}
