package systemd

import (
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
)

// reach returns an error if the socket of systemd cannot be reached.
func reach() error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: os.Getenv("NOTIFY_SOCKET")})
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return conn.Close()
}

// sdNotify sends one datagram.
func sdNotify(message string) error {
	_, err := daemon.SdNotify(false, message)
	return err
}

// monotonicUsec returns the assignment of the present time, which systemd compares
// with its own, with a newline.
func monotonicUsec() string { return daemon.SdNotifyMonotonicUsec() }
