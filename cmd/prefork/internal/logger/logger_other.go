//go:build !unix || solaris || aix

package logger

import (
	"fmt"
	"io"
)

// Main is for Unix systems.
func Main(name string, _ []string, errs io.Writer) (status int) {
	fmt.Fprintf(errs, "%s: this system has no locks of files as it needs\n", name)
	return 111
}
