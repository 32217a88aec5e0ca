//go:build !unix || solaris || aix

package watch

import (
	"fmt"
	"runtime"
)

func (p *plan) lock(func(*BusyError)) error {
	return fmt.Errorf("%s cannot lock a directory", runtime.GOOS)
}

func awaitJournal(path string) error {
	return fmt.Errorf("%s cannot wait for %s", runtime.GOOS, path)
}

func (p *plan) enter() func() error { return nil }
