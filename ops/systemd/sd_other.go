//go:build !linux

package systemd

import "errors"

// There is no systemd on other systems.

func sdNotify(string) error { return errors.ErrUnsupported }

func monotonicUsec() string { return "" }
