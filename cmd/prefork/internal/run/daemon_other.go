//go:build !unix

package run

import (
	"errors"

	"github.com/prefork-go/prefork/ops/capture"
)

const daemonEnv = "PREFORK_RUN_DAEMON"

type daemon struct{}

func daemonize() error                                { return errors.ErrUnsupported }
func takeDaemon() (*daemon, error)                    { return nil, nil }
func (*daemon) Write([]byte) (int, error)             { return 0, errors.ErrUnsupported }
func (*daemon) detach(*capture.Capture, string) error { return nil }
