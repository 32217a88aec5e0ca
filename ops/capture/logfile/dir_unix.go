//go:build unix && !solaris && !aix

package logfile

import (
	"fmt"
	"path/filepath"

	"github.com/prefork-go/prefork/internal/safedir"
)

// checkDir refuses a directory in which another user could replace the file, or
// one on whose path another user could replace a directory: timberjack names files
// by their path, and follows links.
func checkDir(path string) error {
	dir, err := safedir.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Shared(); err != nil {
		return err
	}
	for up := filepath.Dir(dir.Path()); ; up = filepath.Dir(up) {
		d, err := safedir.Open(up)
		if err != nil {
			return err
		}
		err = d.Shared()
		if d.Sticky() {
			err = nil
		}
		d.Close()
		if err != nil {
			return fmt.Errorf("above the log: %w", err)
		}
		if up == filepath.Dir(up) {
			return nil
		}
	}
}
