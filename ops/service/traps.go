package service

import (
	"fmt"
	"os"
	"os/signal"
)

// traps are the signals that a loop receives.
type traps struct {
	c       chan os.Signal
	ignored []os.Signal // were ignored before trap
}

func checkTraps(sigs []os.Signal) error {
	for _, sig := range sigs {
		if sig == nil || !canTrap(sig) {
			return fmt.Errorf("TrapSignals: %v cannot be trapped: remove it", sig)
		}
	}
	return nil
}

func trap(sigs []os.Signal) *traps {
	t := &traps{c: make(chan os.Signal, 1)}
	for _, sig := range sigs {
		if signal.Ignored(sig) {
			t.ignored = append(t.ignored, sig)
		}
	}
	if len(sigs) > 0 { // Notify without signals would receive all of them
		signal.Notify(t.c, sigs...)
	}
	return t
}

// restore gives the signals their former effect. Other channels of the program
// that are registered with signal.Notify are not affected.
func (t *traps) restore() {
	signal.Stop(t.c)
	if len(t.ignored) > 0 {
		signal.Ignore(t.ignored...)
	}
}
