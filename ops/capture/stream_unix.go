//go:build unix

package capture

import (
	"os"

	"github.com/prefork-go/prefork/internal/fd"
)

func duplicate(f *os.File) (*os.File, error) {
	raw, err := fd.Raw(f)
	if err != nil {
		return nil, err
	}
	d, err := fd.Duplicate(raw)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(d), f.Name()), nil
}
