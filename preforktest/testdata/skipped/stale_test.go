package skipped

import (
	"os"

	"github.com/prefork-go/prefork/preforktest"
)

// The program "stale" is in a file without tests, so no skip excuses it.
func init() {
	switch os.Getenv("SKIPPED_STALE") {
	case "stale":
		preforktest.Register("stale", func() {})
	case "optional":
		preforktest.RegisterOptional("stale", func() {})
	}
}
