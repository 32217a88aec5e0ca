//go:build !linux

package run

import "errors"

type notifySocket struct{}

func listenNotify(func(pid int) bool) (*notifySocket, error) {
	return nil, errors.New("--ready notify needs Linux, whose kernel names the sender of a message")
}

func (*notifySocket) address() string { return "" }
func (*notifySocket) close()          {}
func (*notifySocket) spawned(int)     {}
