// Package supervise holds the directory supervise of a service, as runit's runsv
// does: its lock, the FIFOs ok and control, and the files pid, stat and status.
// The programs sv of runit and svok, svstat and svc of daemontools then work on
// the service. The package starts no process and has no policy.
//
//	d, err := supervise.Open("/etc/service/web")
//	if err != nil { ... } // errors.Is(err, supervise.ErrLocked): it runs already
//	defer d.Close()
//	d.Commands(func(command byte) { ... }) // u, d, o, t …
//	err = d.Write(supervise.Status{State: supervise.Run, PID: pid, Up: true, Since: time.Now()})
//
// On systems other than Unix, and on Solaris and AIX, Open returns an error that
// matches errors.ErrUnsupported. Status works on all systems.
package supervise

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// ErrLocked is matched by the error of Open if another process holds the
// directory, be it runsv or one that uses this package.
var ErrLocked = errors.New("supervise directory is locked")

// A LockedError is the error of Open that matches ErrLocked.
type LockedError struct {
	Path string // of the file that is locked
	PID  int    // of the process that has locked it; 0 if unknown
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return e.Path + " is locked: another process runs this service"
	}
	return fmt.Sprintf("%s is locked: process %d runs this service", e.Path, e.PID)
}

func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// A State names the program of a service that runs.
type State uint8

const (
	Down   State = iota // nothing
	Run                 // the program run
	Finish              // the program finish, after the end of run
)

func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

var states = [...]string{Down: "down", Run: "run", Finish: "finish"}

// Status is the content of the files pid, stat and status of a service. The zero
// value is the status of a service that is down and wanted down, at no time.
type Status struct {
	Since  time.Time // of the last start of run, or of the end in state Down
	PID    int       // 0 for none; that of finish in state Finish
	State  State
	Paused bool
	Up     bool // wanted up
	Exit   bool // the supervisor ends when the service is down; Up is false then
	Term   bool // the stop signal was sent since the start
}

// size is the length of the file status. That of daemontools has 18 bytes, to
// which runit has added the last two.
const size = 20

// tai is the label of the second 0 of Unix in TAI64, with the ten leap seconds
// that TAI was ahead then. The programs that read it know of no later one.
const tai = 1<<62 + 10

// AppendBinary appends the 20 bytes of the file status. It returns an error if
// they cannot express the status: the pid is negative or has more than 32 bits,
// the state is none of the three, or a service is wanted both up and to exit.
func (s Status) AppendBinary(b []byte) ([]byte, error) {
	if s.PID < 0 || int64(s.PID) > math.MaxUint32 {
		return b, fmt.Errorf("supervise: pid %d has no place in a status", s.PID)
	}
	if int(s.State) >= len(states) {
		return b, fmt.Errorf("supervise: there is no %v", s.State)
	}
	if s.Up && s.Exit {
		return b, errors.New("supervise: a status has both Up and Exit")
	}
	b = binary.BigEndian.AppendUint64(b, uint64(s.Since.Unix()+tai))
	b = binary.BigEndian.AppendUint32(b, uint32(s.Since.Nanosecond()))
	b = binary.LittleEndian.AppendUint32(b, uint32(s.PID))
	want := byte('d')
	if s.Up {
		want = 'u'
	}
	return append(b, bit(s.Paused), want, bit(s.Term), byte(s.State)), nil
}

// MarshalBinary returns the bytes that AppendBinary appends.
func (s Status) MarshalBinary() ([]byte, error) { return s.AppendBinary(make([]byte, 0, size)) }

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// UnmarshalBinary reads the bytes of a file status. Exit is false then, because
// they do not have it. It returns an error, and leaves the status as it was, if
// AppendBinary cannot produce them.
func (s *Status) UnmarshalBinary(b []byte) error {
	if len(b) != size {
		return fmt.Errorf("supervise: a status has %d bytes, not %d", size, len(b))
	}
	nsec := binary.BigEndian.Uint32(b[8:])
	if nsec >= 1e9 {
		return fmt.Errorf("supervise: a status has %d nanoseconds in a second", nsec)
	}
	pid := binary.LittleEndian.Uint32(b[12:])
	if int64(pid) > math.MaxInt {
		return fmt.Errorf("supervise: a status has the pid %d", pid)
	}
	if b[16] > 1 || b[17] != 'u' && b[17] != 'd' || b[18] > 1 || int(b[19]) >= len(states) {
		return fmt.Errorf("supervise: a status ends in % x", b[16:])
	}
	*s = Status{
		Since:  time.Unix(int64(binary.BigEndian.Uint64(b)-tai), int64(nsec)),
		PID:    int(pid),
		State:  State(b[19]),
		Paused: b[16] == 1,
		Up:     b[17] == 'u',
		Term:   b[18] == 1,
	}
	return nil
}

// String returns the line of the file stat, without its newline: "run, got TERM,
// want down".
func (s Status) String() string {
	var b strings.Builder
	b.WriteString(s.State.String())
	if s.Paused {
		b.WriteString(", paused")
	}
	if s.Term {
		b.WriteString(", got TERM")
	}
	switch {
	case s.State == Down: // runsv does not show there which state is wanted
	case s.Exit:
		b.WriteString(", want exit")
	case !s.Up:
		b.WriteString(", want down")
	}
	return b.String()
}
