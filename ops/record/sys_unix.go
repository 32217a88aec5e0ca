//go:build unix

package record

import (
	"syscall"
	"time"
)

// usageData contains the fields of a Rusage that a journal keeps.
type usageData struct {
	User        duration `json:"user"`
	System      duration `json:"system"`
	MaxRSS      int64    `json:"max_rss"` // in the unit of the system: KiB on Linux, bytes on macOS
	Minor       int64    `json:"minor_faults,omitempty"`
	Major       int64    `json:"major_faults,omitempty"`
	Voluntary   int64    `json:"voluntary_switches,omitempty"`
	Involuntary int64    `json:"involuntary_switches,omitempty"`
}

func usageToData(u *syscall.Rusage) *usageData {
	if u == nil {
		return nil
	}
	return &usageData{
		duration(u.Utime.Nano()), duration(u.Stime.Nano()), int64(u.Maxrss),
		int64(u.Minflt), int64(u.Majflt), int64(u.Nvcsw), int64(u.Nivcsw),
	}
}

func (d *usageData) rusage() *syscall.Rusage {
	if d == nil {
		return nil
	}
	u := new(syscall.Rusage)
	u.Utime, u.Stime = timeval(d.User), timeval(d.System)
	assign(&u.Maxrss, d.MaxRSS)
	assign(&u.Minflt, d.Minor)
	assign(&u.Majflt, d.Major)
	assign(&u.Nvcsw, d.Voluntary)
	assign(&u.Nivcsw, d.Involuntary)
	return u
}

func timeval(d duration) syscall.Timeval {
	return syscall.NsecToTimeval(int64(d/duration(time.Microsecond)) * 1000)
}

// assign converts n to the type of the field, whose width depends on the
// architecture.
func assign[T int32 | int64](field *T, n int64) { *field = T(n) }
