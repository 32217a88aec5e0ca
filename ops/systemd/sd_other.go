//go:build !linux

package systemd

import (
	"errors"
	"fmt"
)

// There is no systemd on other systems.

func reach() error { return fmt.Errorf("NOTIFY_SOCKET: %w", errors.ErrUnsupported) }

func sdNotify(string) error { return errors.ErrUnsupported }

func monotonicUsec() string { return "" }
