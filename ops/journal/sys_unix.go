//go:build unix

package journal

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func signalName(sig syscall.Signal) string    { return unix.SignalName(sig) }
func signalNumber(name string) syscall.Signal { return unix.SignalNum(name) }

// usageData is what is written of a Rusage, and as much of it can be read.
type usageData struct {
	User   duration `json:"user"`
	System duration `json:"system"`
	MaxRSS int64    `json:"max_rss"` // as the system counts: KiB on Linux, bytes on macOS
	Minor  int64    `json:"minor_faults,omitempty"`
	Major  int64    `json:"major_faults,omitempty"`
	Waits  int64    `json:"voluntary_switches,omitempty"`
	Forced int64    `json:"involuntary_switches,omitempty"`
}

func usageToData(u *syscall.Rusage) *usageData {
	if u == nil {
		return nil
	}
	return &usageData{
		duration(u.Utime.Nano()), duration(u.Stime.Nano()), int64(u.Maxrss), int64(u.Minflt), int64(u.Majflt), int64(u.Nvcsw), int64(u.Nivcsw),
	}
}

func (d *usageData) rusage() *syscall.Rusage {
	if d == nil {
		return nil
	}
	u := new(syscall.Rusage)
	u.Utime, u.Stime = syscall.NsecToTimeval(int64(d.User/duration(time.Microsecond))*1000), syscall.NsecToTimeval(int64(d.System/duration(time.Microsecond))*1000)
	set(&u.Maxrss, d.MaxRSS)
	set(&u.Minflt, d.Minor)
	set(&u.Majflt, d.Major)
	set(&u.Nvcsw, d.Waits)
	set(&u.Nivcsw, d.Forced)
	return u
}

// set copes with what differs in width by architecture.
func set[T int32 | int64](to *T, n int64) { *to = T(n) }
