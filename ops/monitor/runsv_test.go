//go:build unix

package monitor

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

const (
	ignoresTerm = "run: trap '' TERM; : >up; exec sleep 1000"
	ignoresMost = "run: trap '' HUP ALRM INT QUIT USR1 USR2; : >up; exec sleep 1000"
)

// The services of TestAgainstRunsv, with the commands that are given to each below
// both supervisors. Both must say the same. After "=" is what they must say after a
// while, "!" is an exit status of 1, and a number is a pause in milliseconds, after
// which sv takes a start for another one, and runsv has slept off a young end.
var svCases = []struct {
	name  string
	files []string
	steps string
}{
	{"verbs", []string{ignoresMost}, `
		sv status = run: DIR: (pid N) Ts
		sv up
		sv -v up
		sv start
		sv hup
		sv alarm
		sv interrupt
		sv quit
		sv 1
		sv 2
		sv -v hup
		sv reload
		sv check
		sv status = run: DIR: (pid N) Ts
		sv pause
		sv status = run: DIR: (pid N) Ts, paused
		sv cont
		sv status = run: DIR: (pid N) Ts
		svc -p
		sv status = run: DIR: (pid N) Ts, paused
		svc -c
		sv status = run: DIR: (pid N) Ts
		sv once
		sv status = run: DIR: (pid N) Ts, want down
		sv up
		sv status = run: DIR: (pid N) Ts
		svok
		svstat = DIR: up (pid N) T seconds`},
	{"stop", nil, `
		sv down
		sv status = down: DIR: Ts, normally up
		sv down
		sv once
		sv status = run: DIR: (pid N) Ts, want down
		1100
		sv stop
		sv status = down: DIR: Ts, normally up
		sv -w20 start
		svstat = DIR: up (pid N) T seconds
		1100
		svc -d
		svstat = DIR: down T seconds, normally up
		svc -u
		sv status = run: DIR: (pid N) Ts
		sv -w20 -v down
		sv status = down: DIR: Ts, normally up`},
	{"restart", nil, `
		sv -w20 restart
		1100
		sv -w20 try-restart
		1100
		sv -w20 force-reload
		1100
		sv -w20 force-restart
		1100
		sv -w20 -v term
		sv status = run: DIR: (pid N) Ts
		1100
		sv kill
		sv status = run: DIR: (pid N) Ts`},
	{"down", []string{"down: "}, `
		sv status = down: DIR: Ts
		sv check
		sv try-restart
		sv up
		sv status = run: DIR: (pid N) Ts, normally down
		1100
		sv down
		sv status = down: DIR: Ts`},
	{"never", []string{ignoresTerm}, `
		sv term
		sv status = run: DIR: (pid N) Ts, got TERM
		sv -w1 restart
		sv down
		sv status = run: DIR: (pid N) Ts, want down, got TERM
		sv -w1 stop
		sv pause
		sv status = run: DIR: (pid N) Ts, paused, want down, got TERM
		sv cont
		sv status = run: DIR: (pid N) Ts, want down, got TERM
		sv up
		sv status = run: DIR: (pid N) Ts, got TERM
		sv down
		sv status = run: DIR: (pid N) Ts, want down, got TERM
		sv -w1 force-stop
		sv status = down: DIR: Ts, normally up`},
	{"exit", nil, `
		sv -w20 -v exit
		sv status = fail: DIR: runsv not running!
		sv up
		sv -v start
		svok
		svstat`},
	{"shutdown", []string{ignoresTerm}, `
		sv exit
		sv status = run: DIR: (pid N) Ts, want down, got TERM
		sv -w1 shutdown
		sv -w1 force-shutdown
		sv status = fail: DIR: runsv not running!`},
	{"checked", []string{"check: exit 1"}, `
		sv -w1 check
		sv -w1 start
		sv status = run: DIR: (pid N) Ts`},
	{"good", []string{"check: exit 0"}, `
		sv check
		sv start
		sv -w20 restart
		sv check`},
	{"finish", []string{"run: : >up; exec sleep 1000", "finish: test -e quit || exec sleep 1000", "timeout-finish: 0"}, `
		sv kill
		sv status = finish: DIR: (pid N) Ts
		sv down
		sv status = finish: DIR: (pid N) Ts, want down
		sv up
		sv status = finish: DIR: (pid N) Ts
		sv once
		sv status = finish: DIR: (pid N) Ts, want down`},
	{"logged", []string{"log/run: exec cat >/dev/null"}, `
		sv status = run: DIR: (pid N) Ts; run: log: (pid N) Ts
		sv status /log = run: DIR/log: (pid N) Ts
		sv down /log
		sv status = run: DIR: (pid N) Ts; down: log: Ts, normally up
		sv status /log = down: DIR/log: Ts, normally up
		sv exit /log
		sv up /log
		sv status = run: DIR: (pid N) Ts; run: log: (pid N) Ts
		svstat /log = DIR/log: up (pid N) T seconds
		1100
		sv -w20 -v term /log
		sv down
		sv status = down: DIR: Ts, normally up; run: log: (pid N) Ts
		sv -w20 start
		sv status = run: DIR: (pid N) Ts; run: log: (pid N) Ts
		sv -w20 -v exit
		sv status = fail: DIR: runsv not running!
		sv status /log = fail: DIR/log: runsv not running!`},
	{"log-down", []string{"log/run: exec cat >/dev/null", "log/down: "}, `
		sv status = run: DIR: (pid N) Ts; down: log: Ts
		sv up /log
		sv status = run: DIR: (pid N) Ts; run: log: (pid N) Ts, normally down`},
	{"usage", nil, `
		sv nosuch
		sv
		sv status /nosuch
		sv up /nosuch`},
	{"initd", nil, `
		initd status = run: initd: (pid N) Ts
		initd stop
		initd status
		initd start
		initd status
		initd nosuch
		initd restart`},
}

var (
	pids  = regexp.MustCompile(`pid \d+`)
	times = regexp.MustCompile(`\b\d+(s| seconds)\b`)
)

// A side is one of the two supervisors, with the directory of its services.
type side struct {
	t   testing.TB
	dir string
}

// call runs a command for a service, and returns what it says and its exit status.
func (s side) call(service, step string) string {
	words, dir := strings.Fields(step), filepath.Join(s.dir, service)
	path := dir
	if last := len(words) - 1; strings.HasPrefix(words[last], "/") {
		path += words[last]
		words = words[:last]
	}
	words = append(words, path)
	program := words[0]
	if program == "initd" {
		program = filepath.Join(s.dir+".init.d", service)
		words = words[:len(words)-1]
	}
	cmd := exec.Command(program, words[1:]...)
	cmd.Env = append(os.Environ(), "SVDIR="+s.dir)
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	text = times.ReplaceAllString(pids.ReplaceAllString(text, "pid N"), "T$1")
	text = strings.ReplaceAll(strings.ReplaceAll(text, dir, "DIR"), program, words[0])
	if words[0] == "initd" {
		text = strings.Replace(text, ": "+service+":", ": initd:", 1)
	}
	switch {
	case err == nil:
	case err.Error() == "exit status 1":
		text += "!"
	default:
		text += "! " + err.Error()
	}
	return text
}

// step gives one command. If it must say something after a while, step waits until it
// does.
func (s side) step(service, step string) (said string) {
	step, want, settles := strings.Cut(step, " = ")
	if d, err := time.ParseDuration(step + "ms"); err == nil {
		time.Sleep(d)
		return ""
	}
	for end := time.Now().Add(waitLimit); ; time.Sleep(20 * time.Millisecond) {
		if said = s.call(service, step); !settles || said == want || time.Now().After(end) {
			return said
		}
	}
}

// run gives the commands of all services at once: sv mostly waits.
func (s side) run() (said map[string][]string) {
	var mu sync.Mutex
	var all sync.WaitGroup
	said = make(map[string][]string)
	for _, c := range svCases {
		all.Go(func() {
			var lines []string
			for step := range strings.Lines(c.steps) {
				if step = strings.TrimSpace(step); step != "" {
					lines = append(lines, step+"\n\t"+s.step(c.name, step))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			said[c.name] = lines
		})
	}
	all.Wait()
	return said
}

// ready waits until run of all services has come to where it traps signals, and until
// a start has another second than the first command.
func (s side) ready() {
	for _, c := range svCases {
		file := "up"
		if c.name == "down" {
			file = "supervise/status"
		}
		preforktest.WaitFor(s.t, c.name+" below "+s.dir, func() bool {
			_, err := os.Stat(filepath.Join(s.dir, c.name, file))
			return err == nil
		})
	}
	time.Sleep(1100 * time.Millisecond)
}

// Real sv, svok, svstat and svc say the same of a service of a Monitor as of one of
// runsv, and exit in the same way.
func TestAgainstRunsv(t *testing.T) {
	if testing.Short() {
		preforktest.Skipf(t, "sv takes seconds")
	}
	runsv := preforktest.NeedCommand(t, "runsv", "Debian: apt-get install runit")
	sv := preforktest.NeedCommand(t, "sv", "Debian: apt-get install runit")
	for _, name := range []string{"svok", "svstat", "svc"} {
		preforktest.NeedCommand(t, name, "Debian: apt-get install daemontools")
	}
	r, theirs := newRig(t, Config{}), newRig(t, Config{}) // of the latter the directory is used
	for _, c := range svCases {
		for _, rig := range []*rig{r, theirs} {
			rig.service(c.name, append([]string{"run: : >up; exec sleep 1000"}, c.files...)...)
			os.Mkdir(rig.dir+".init.d", 0o755)
			if err := os.Symlink(sv, filepath.Join(rig.dir+".init.d", c.name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	runit, ours := side{t, theirs.dir}, side{t, r.dir}
	for _, c := range svCases {
		p := preforktest.Command(t, exec.Command(runsv, filepath.Join(theirs.dir, c.name))).Start()
		t.Cleanup(func() { // or it would leave its service behind
			theirs.file(c.name+"/quit", "")
			runit.call(c.name, "sv kill") // also finish, which runsv starts again
			runit.call(c.name, "sv exit")
			runit.call(c.name, "sv kill")
			p.Wait()
			preforktest.WaitFor(t, "nothing of "+c.name, func() bool {
				killIn(filepath.Join(theirs.dir, c.name)) // again: one may be between fork and exec
				left, err := p.Descendants()
				return err == nil && len(left) == 0
			})
		})
	}
	r.start()
	runit.ready()
	ours.ready()
	var want, got map[string][]string
	var both sync.WaitGroup
	both.Go(func() { want = runit.run() })
	both.Go(func() { got = ours.run() })
	both.Wait()
	r.m.Kill()
	for name, lines := range want {
		for i, line := range lines {
			if step, said, _ := strings.Cut(line, "\n\t"); got[name][i] != line {
				t.Errorf("%s, step %d: %s: runsv: %s\nours: %s", name, i+1, step, said, got[name][i])
			} else if _, expected, ok := strings.Cut(step, " = "); ok && said != expected {
				t.Errorf("%s, step %d: %s: both: %s", name, i+1, step, said)
			}
		}
	}
}

// killIn kills the processes that are in a directory: a runsv that is asked to exit
// while finish runs may leave that behind.
func killIn(dir string) {
	all, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range all {
		if cwd, err := os.Readlink(link); err == nil && cwd == dir {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
