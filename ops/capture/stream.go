package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// NewStream returns a Sink that writes to a file that is open, usually os.Stdout
// or os.Stderr. It uses a duplicate of f: if the reader of a pipe has gone, the Go
// runtime ends a process that writes to descriptor 1 or 2, and a Capture reports
// an error that wraps ErrLost instead. The caller keeps f.
func NewStream(f *os.File) (Sink, error) {
	d, err := duplicate(f)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	return &stream{d}, nil
}

type stream struct{ f *os.File }

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	for _, gone := range []error{syscall.EPIPE, syscall.EBADF, syscall.EIO, os.ErrClosed} {
		if errors.Is(err, gone) {
			return n, fmt.Errorf("%w: %w", ErrLost, err)
		}
	}
	return n, err
}

// Close ends a Write to a file in non-blocking mode. One that blocks a thread
// cannot be ended.
func (s *stream) Close(context.Context) error { return s.f.Close() }
