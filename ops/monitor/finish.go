//go:build unix

package monitor

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/ops/monitor/internal/machine"
)

// scriptLimit is how long a script control/C may take.
const scriptLimit = 5 * time.Second

// signalOf returns the signal of a command byte.
func signalOf(c byte, reload syscall.Signal) syscall.Signal {
	switch c {
	case 'k':
		return syscall.SIGKILL
	case 'p':
		return syscall.SIGSTOP
	case 'c':
		return syscall.SIGCONT
	case 'h':
		return reload
	case 'a':
		return syscall.SIGALRM
	case 'i':
		return syscall.SIGINT
	case 'q':
		return syscall.SIGQUIT
	case '1':
		return syscall.SIGUSR1
	}
	return syscall.SIGUSR2
}

// newScript returns a script of a slot. Its started and ended are those that
// Config.Output has returned, followed by these.
func (u *unit) newScript(s *slot, limit time.Duration, args []string, started func(pid int), ended func(proc.Status, error)) *script {
	sc := &script{dir: u.dir, args: args, env: slices.Clone(u.set.env), unset: u.unset(), limit: limit, started: started, ended: ended}
	if f := u.mon.cfg.Output; f != nil {
		sp := &prefork.Spawn{Slot: s.index}
		shown, closed := f(u.name, sp)
		sc.out, sc.errs = sp.Stdout, sp.Stderr
		pid := 0
		sc.started = func(n int) {
			if pid = n; shown != nil {
				shown(n)
			}
			started(n)
		}
		sc.ended = func(status proc.Status, err error) {
			if closed != nil && pid != 0 {
				closed(prefork.Exit{Slot: s.index, PID: pid, Status: prefork.ExitStatus(status)})
			}
			ended(status, err)
		}
	}
	if u.kind == Service && u.pipe != nil {
		sc.out = u.pipe.w
	}
	return sc
}

// runScript runs control/C.
func (u *unit) runScript(s *slot, a machine.Action) {
	name := "control/" + string(rune(a.Byte))
	u.mon.scripts.run(u.newScript(s, scriptLimit, []string{name}, func(int) {}, func(status proc.Status, err error) {
		u.mu.Lock()
		defer u.mu.Unlock()
		if err != nil {
			u.log.Warn("cannot run a control script", "script", name, "err", err)
		}
		u.apply(s, machine.Event{Kind: machine.Scripted, Byte: a.Byte, For: a.For, ID: a.ID, Replaced: err == nil && status.Clean()})
	}))
}

// permanent is the exit status by which finish asks that run is not started again.
const permanent = 125

// runFinish runs finish for the end of run of a slot, once the files of supervise/
// show that end.
func (u *unit) runFinish(s *slot) {
	started := func(pid int) {
		if pid != 0 {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.apply(s, machine.Event{Kind: machine.FinishStarted, PID: pid})
		}
	}
	sc := u.newScript(s, u.set.finishWithin, append([]string{"./finish"}, u.finishArgs(s.exit)...), started, func(status proc.Status, err error) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.finishEnded(s, status, err)
	})
	sc.env = append(sc.env, finishEnv(s.exit)...)
	s.finish = sc
	u.show(func() { u.mon.scripts.run(sc) })
}

func (u *unit) finishEnded(s *slot, status proc.Status, err error) {
	switch {
	case err != nil && err != os.ErrProcessDone:
		u.log.Warn("cannot run finish", "err", err)
	case s.finish.killed && s.finish.overdue:
		u.log.Warn("finish was killed", "limit", s.finish.limit.String())
	case s.finish.killed: // by a command, or at the end of everything
		u.log.Warn("finish was killed")
	}
	s.finish = nil
	u.apply(s, machine.Event{Kind: machine.FinishEnded, GiveUp: status == proc.Status{Code: permanent}})
}

// finishArgs returns CODE SIGNAL NAME PGID. run leads a process group.
func (u *unit) finishArgs(e prefork.Exit) []string {
	code := e.Status.Code
	switch {
	case e.Status.Signal == 0 && !e.Status.Unknown:
	case u.mon.cfg.Style == StyleS6:
		code = 256
	default:
		code = -1
	}
	return []string{strconv.Itoa(code), strconv.Itoa(int(e.Status.Signal)), u.name, strconv.Itoa(e.PID)}
}

func finishEnv(e prefork.Exit) []string {
	end := fmt.Sprintf("code %d", e.Status.Code)
	if e.Status.Signal != 0 {
		end = "signal " + sig.Name(e.Status.Signal)
	}
	return []string{
		"PREFORK_EXIT=" + end,
		"PREFORK_REASON=" + e.Reason.String(),
		"PREFORK_UPTIME_MS=" + strconv.FormatInt(e.Uptime.Milliseconds(), 10),
	}
}

// count notes an end of run, in the tally too.
func (u *unit) count(d Death) {
	u.ends, u.lastEnd = u.ends+1, d
	if u.kind == Program || u.set.tally == 0 && len(u.tally) == 0 {
		return
	}
	u.tally = append(u.tally, d)
	u.tally = u.tally[max(0, len(u.tally)-u.set.tally):]
	u.tallied = true
}

// appendTally appends deaths as s6-supervise writes them: the time in TAI64N, the
// exit code, and the number of the signal, or 0.
func appendTally(b []byte, deaths []Death) []byte {
	const tai = 1<<62 + 10 // the label of the second 0 of Unix
	for _, d := range deaths {
		b = binary.BigEndian.AppendUint64(b, uint64(d.Time.Unix())+tai)
		b = binary.BigEndian.AppendUint32(b, uint32(d.Time.Nanosecond()))
		code := d.Status.Code
		if d.Status.Signal != 0 {
			code = 0
		}
		b = append(b, byte(code), byte(d.Status.Signal))
	}
	return b
}
