// Package watch is the verb watch of the command prefork: it keeps the programs
// and service directories of a directory running.
package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prefork-go/prefork/cmd/prefork/internal/output"
	"github.com/prefork-go/prefork/internal/values"
	"github.com/prefork-go/prefork/ops/monitor"
)

// Options are the values of the flags.
type Options struct {
	Dir string

	Name, Control, Journal string

	Wait     bool
	BusyExit int

	Backoff     string
	StopTimeout time.Duration // 0 means never
	Settle      time.Duration
	Max         int
	Style       string
	Once        bool

	output.Options
}

// The defaults of flags.
const (
	DefaultBackoff = "0,5s,15s,1m"
	DefaultStop    = 3 * time.Second
	DefaultSettle  = 300 * time.Millisecond
	DefaultMax     = 4096
)

// A UsageError is an error of the flags.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// A plan is Options that are checked.
type plan struct {
	Options
	config monitor.Config
	locks  []*os.File // held until the process ends
}

func (o Options) plan() (*plan, error) {
	p := &plan{Options: o}
	if err := p.check(); err != nil {
		return nil, &UsageError{err}
	}
	return p, nil
}

func (p *plan) check() (err error) {
	if p.Dir == "" {
		return errors.New("there is no directory: prefork watch [flags] DIR")
	}
	if p.Dir, err = filepath.Abs(p.Dir); err != nil {
		return err
	}
	if p.Journal != "" {
		if p.Journal, err = filepath.Abs(p.Journal); err != nil {
			return err
		}
	}
	if p.Name == "" {
		p.Name = filepath.Base(p.Dir)
	}
	c := &p.config
	c.Dir, c.Settle, c.Max, c.StopTimeout, c.Once = p.Dir, p.Settle, p.Max, p.StopTimeout, p.Once
	switch {
	case p.BusyExit < 0 || p.BusyExit > 255:
		return fmt.Errorf("--busy-exit %d: an exit status is 0 to 255", p.BusyExit)
	case p.Settle <= 0:
		return fmt.Errorf("--settle %v: it must be more than 0", p.Settle)
	case p.Max < 1:
		return fmt.Errorf("--max %d: it must be at least 1", p.Max)
	case p.StopTimeout < 0:
		return fmt.Errorf("--stop-timeout %v: it must not be negative; 0 means never", p.StopTimeout)
	case p.StopTimeout == 0:
		c.StopTimeout = -1
	}
	switch p.Style {
	case "runit":
		c.Style = monitor.StyleRunit
	case "s6":
		c.Style = monitor.StyleS6
	default:
		return fmt.Errorf("--style %s: it is neither runit nor s6", p.Style)
	}
	if c.Backoff, err = values.Delays(p.Backoff); err != nil {
		return fmt.Errorf("--backoff %s: %w", p.Backoff, err)
	}
	return p.Options.Options.Check()
}
