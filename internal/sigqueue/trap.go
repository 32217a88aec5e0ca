package sigqueue

import (
	"os"
	"os/signal"
)

// Trap makes this process receive sig, and calls arrive for each arrival until
// release is called. Tests replace it, since its goroutine would outlive the
// bubble of a synctest.
//
// Each signal has a channel of its own, with room for one: a second arrival of a
// signal that still waits in it adds nothing. In a channel that signals share,
// many HUPs would leave no room for a TERM.
var Trap = func(sig os.Signal, arrive func(os.Signal)) (release func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, sig)
	go func() {
		for sig := range c {
			arrive(sig)
		}
	}()
	return func() {
		signal.Stop(c)
		close(c)
	}
}
