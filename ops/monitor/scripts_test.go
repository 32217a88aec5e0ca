//go:build unix

package monitor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

// finish has the end of run as arguments and in its environment.
func TestFinish(t *testing.T) {
	for _, tt := range []struct {
		name  string
		style Style
		end   string
		want  string
	}{
		{"exit", StyleRunit, "exit 7", `7 0 web PID code 7 crashed \d+`},
		{"success", StyleRunit, "exit 0", `0 0 web PID code 0 finished \d+`},
		{"signal", StyleRunit, "kill -9 $$", `-1 9 web PID signal SIGKILL crashed \d+`},
		{"signal, as s6", StyleS6, "kill -9 $$", `256 9 web PID signal SIGKILL crashed \d+`},
		{"exit, as s6", StyleS6, "exit 7", `7 0 web PID code 7 crashed \d+`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Config{Style: tt.style, Once: true})
			r.service("web", "run: echo up $$; "+tt.end, `finish: echo $1 $2 $3 $4 $PREFORK_EXIT $PREFORK_REASON $PREFORK_UPTIME_MS $A $#`, "env/A: a")
			r.start()
			pid := r.want(`up (\d+)`)[0]
			r.want(strings.Replace(tt.want, "PID", pid, 1) + " a 4")
			if err := <-r.done; err != nil { // Once
				t.Error(err)
			}
			r.done <- nil
		})
	}
}

// run follows finish, with the delay of backoff counted from the start; a finish that
// exits with 125 ends that until a command u.
func TestFinishGivesUp(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: echo up; exit 1", `finish: echo finish; test ! -e giveup || exit 125`, "backoff: 0")
	r.start()
	r.want("up", "finish", "up", "finish", "up")
	r.file("web/giveup", "")
	preforktest.WaitFor(t, "gave-up", func() bool { return r.hasEvent(GaveUp, "web") })
	if st := r.state("web", "down"); !st.GaveUp || st.Up {
		t.Errorf("after 125: %+v", st)
	}
	r.written()
	r.quiet(50 * time.Millisecond)
	os.Remove(filepath.Join(r.dir, "web", "giveup"))
	r.do("web", "u")
	r.want("up", "finish", "up")
	if r.status("web").GaveUp {
		t.Error("it still has given up after u")
	}
}

// A finish that hangs is killed with its group after timeout-finish. Commands are
// taken until then, and shown.
func TestFinishThatHangs(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: echo up; test -e once && exec sleep 1000; >once; exit 1", `finish: trap "" TERM; sleep 1000 & echo finish $!; wait; wait`, "timeout-finish: 60000")
	r.start()
	r.want("up")
	child, _ := strconv.Atoi(r.want(`finish (\d+)`)[0])
	r.state("web", "finish")
	// Its line can be earlier.
	preforktest.WaitFor(t, "pid of finish", func() bool { return r.status("web").PID != 0 })
	r.do("web", "d")
	r.state("web", "finish, want down")
	r.do("web", "tcu")
	r.state("web", "finish")
	r.do("web", "k")
	r.want("up") // at once, since u came
	preforktest.WaitFor(t, "end of the child of finish", func() bool { return syscall.Kill(child, 0) != nil || isZombie(child) })

	r.file("web/timeout-finish", "50\n")
	r.do("web", "t") // read again at the next start
	r.want(`finish \d+`)
	r.do("web", "k")
	r.want("up")
	r.do("web", "t")
	if r.line() != "up" { // it may be killed before it has written a line
		r.want("up") // without a command
	}
	if !strings.Contains(r.log.String(), "finish was killed") {
		t.Error("the log has nothing of it")
	}
}

// isZombie reports whether a process waits for its parent, which is process 1.
func isZombie(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(data), ") Z ")
}

// A control script that exits with 0 replaces the signal, t also for d and x, and u
// comes before each start. One that fails or hangs does not.
func TestControlScripts(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", `run: trap "echo hup" HUP; trap "echo usr1" USR1; trap "echo term; exit" TERM; echo up; while :; do sleep 0.01; done`,
		"control/u: echo control u", "control/t: echo control t", "control/h: echo control h; exit 1", "control/d: echo control d", "control/1: echo control 1")
	r.start()
	r.want("control u", "up")
	r.do("web", "1")
	r.want("control 1")
	r.do("web", "h")
	r.want("control h", "hup")
	r.do("web", "t")
	r.want("control t")
	r.do("web", "d")
	r.want("control t", "control d")
	if st := r.state("web", "run, want down"); st.Term {
		t.Errorf("TERM was sent: %+v", st)
	}
	os.Remove(filepath.Join(r.dir, "web", "control", "t"))
	r.do("web", "t")
	r.want("term")
	r.do("web", "u")
	r.want("control u", "up")
}

// A control script takes the log pipe as its output, and a command goes on while
// another one has a script that hangs.
func TestControlScriptThatHangs(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", `run: trap "echo usr2" USR2; echo up; while :; do sleep 0.01; done`, "control/t: echo control $$; exec sleep 1000", "log/run: exec cat")
	r.start()
	r.want("up")
	r.do("web", "t")
	script, _ := strconv.Atoi(r.want(`control (\d+)`)[0])
	r.do("web", "2")
	r.want("usr2")
	r.do("web", "k")
	r.want("up")
	os.Remove(filepath.Join(r.dir, "web", "control", "t")) // the stop would wait for it
	syscall.Kill(script, syscall.SIGKILL)
}
