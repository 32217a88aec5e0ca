package systemd

import "github.com/coreos/go-systemd/v22/daemon"

// sdNotify sends one datagram.
func sdNotify(message string) error {
	_, err := daemon.SdNotify(false, message)
	return err
}

// monotonicUsec returns the assignment of the present time, which systemd compares
// with its own, with a newline.
func monotonicUsec() string { return daemon.SdNotifyMonotonicUsec() }
