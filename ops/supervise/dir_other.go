//go:build !unix || solaris || aix

package supervise

import "errors"

// A Dir is the directory supervise of a service. There is none on this system.
type Dir struct{}

func Open(string) (*Dir, error)        { return nil, errors.ErrUnsupported }
func (d *Dir) Commands(func(byte))     {}
func (d *Dir) Write(Status) error      { return errors.ErrUnsupported }
func (d *Dir) WriteTally([]byte) error { return errors.ErrUnsupported }
func (d *Dir) Close() error            { return nil }

func SetDown(string, bool) error { return errors.ErrUnsupported }
