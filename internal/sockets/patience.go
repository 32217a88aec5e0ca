package sockets

import (
	"errors"
	"syscall"
	"time"
)

// retryPause is the time between two tries to bind.
const retryPause = 50 * time.Millisecond

// patiently calls bind again, for Config.Patience, while the address belongs to
// workers whose manager has been killed: they end soon. A new manager is often
// started at once.
func patiently[T any](set *Set, network, address string, bind func() (T, error)) (s T, err error) {
	s, err = bind()
	deadline := time.Now().Add(set.cfg.Patience)
	for logged := false; errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(deadline); {
		orphans, others := holders(network, address)
		// The first look decides. Later ones find the same processes while they exit:
		// the kernel has freed their memory by then, with the environment that tells
		// what they are, or no longer lists their descriptors, and they still hold them.
		if others && !logged {
			return s, err
		}
		if len(orphans) == 0 && !logged { // they may just have ended
			return bind()
		}
		if !logged {
			set.cfg.Log.Warn("address in use by workers of a killed manager, waiting for their end",
				"network", network, "address", address, "pids", orphans, "for", set.cfg.Patience)
			logged = true
		}
		time.Sleep(retryPause)
		s, err = bind()
	}
	return s, err
}
