package upgrade_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("unit", unit) }

// unit is the program of the services. Its arguments are an address, and "reaper"
// for a manager below a reaper.
func unit() {
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2, Reaper: len(os.Args) > 2,
		Readiness: prefork.Readiness{Explicit: true},
		TrapSignals: prefork.Signals{
			term: {Signal: term}, hup: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true},
		},
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.ExitEvent:
				testprog.Print("exit: %v, %v", ev.Exit.Reason, ev.Exit.Status)
			case prefork.RolledEvent:
				testprog.Print("rolled")
			}
		},
	})
	ln, err := pm.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		notifySystemd("READY=1")
		go feedWatchdog()
		go func() {
			<-prefork.TookOver()
			testprog.Print("manager %d serves on %v", os.Getpid(), ln.Addr())
		}()
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		w.Context() // from here on the stop signal does not end the worker
		w.Ready()
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(rw, w.ManagerPID())
		})})
	}); err != nil {
		log.Fatal(err)
	}
}

func notifySystemd(state string) {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		testprog.Print("notify: %v", err)
		return
	}
	defer conn.Close()
	io.WriteString(conn, state)
}

// feedWatchdog is the watchdog of a program that knows nothing of upgrades: it
// checks the variables as sd_watchdog_enabled does.
func feedWatchdog() {
	usec, err := strconv.Atoi(os.Getenv("WATCHDOG_USEC"))
	if err != nil || os.Getenv("WATCHDOG_PID") != strconv.Itoa(os.Getpid()) {
		testprog.Print("process %d has no watchdog", os.Getpid())
		return
	}
	for range time.Tick(time.Duration(usec) * time.Microsecond / 50) {
		notifySystemd("WATCHDOG=1")
	}
}

// A userManager is an instance of systemd for a user, in namespaces and a cgroup
// of its own. It has no units but those of the test.
type userManager struct {
	*preforktest.Program
	t                         *testing.T
	systemctl, runtime, units string
}

// startSystemd starts a userManager, or skips the test.
func startSystemd(t *testing.T) *userManager {
	t.Helper()
	const hint = "Debian: apt-get install systemd"
	m := &userManager{
		t: t, systemctl: preforktest.NeedCommand(t, "systemctl", hint),
		runtime: preforktest.SocketDir(t), units: t.TempDir(),
	}
	program := "/lib/systemd/systemd"
	if _, err := os.Stat(program); err != nil {
		preforktest.Missingf(t, "%s is not installed: %s", program, hint)
	}
	// Print a line at the end of its start. /proc/1/fd/1 is the output of the Program.
	m.install("up.service", "[Service]\nType=oneshot\nExecStart=echo systemd is up\n")

	m.Program = preforktest.New(t, "unit")
	env := []string{"XDG_RUNTIME_DIR=" + m.runtime, "SYSTEMD_UNIT_PATH=" + m.units, "HOME=" + t.TempDir()}
	for _, name := range []string{"PATH", "TMPDIR", "GORACE", "GOCOVERDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	// systemd runs as a user's only if it is not process 1, in a cgroup that it
	// may write to, and if systemd has booted the system, as a directory shows.
	const script = `mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
		{ [ -d /run/systemd/system ] || mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system; } &&
		"$0" --user --unit=up.service --log-target=console --log-level=notice
		echo "systemd has ended with status $?"`
	m.Cmd = &exec.Cmd{
		Path: "/bin/sh", Args: []string{"sh", "-c", `exec unshare --cgroup -- sh -c "$0" "$1"`, script, program}, Env: env,
		SysProcAttr: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(newCgroup(t).Fd())},
	}
	m.AsInit().Start()
	if up := m.Expect(`^systemd (is up|has ended.*)$`); up[1] != "is up" {
		preforktest.Skipf(t, "no instance of systemd for this user: %v", m.Lines())
	}
	return m
}

// newCgroup makes a cgroup of version 2, and removes it with those below it.
func newCgroup(t *testing.T) *os.File {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	path := ""
	for line := range strings.Lines(string(own)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			path = strings.TrimSuffix(rest, "\n")
		}
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if !strings.Contains(line, " - cgroup2 ") || fields[3] != "/" {
			continue
		}
		dir, err := os.MkdirTemp(fields[4]+path, "prefork-test-")
		if err != nil {
			preforktest.Skipf(t, "no cgroup for systemd: %v", err)
		}
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			f.Close()
			preforktest.WaitFor(t, "an empty cgroup", func() bool { return removeCgroup(dir) == nil })
		})
		return f
	}
	preforktest.Skipf(t, "no cgroup for systemd: version 2 of cgroups is not mounted")
	return nil
}

func removeCgroup(dir string) error {
	below, err := os.ReadDir(dir)
	for _, entry := range below {
		if entry.IsDir() {
			removeCgroup(filepath.Join(dir, entry.Name()))
		}
	}
	if err != nil {
		return err
	}
	return syscall.Rmdir(dir)
}

// install writes a unit.
func (m *userManager) install(name, text string) {
	m.t.Helper()
	text = "[Unit]\nDefaultDependencies=no\n" + text
	if strings.HasSuffix(name, ".service") {
		text += "StandardOutput=append:/proc/1/fd/1\nStandardError=inherit\n"
	}
	if err := os.WriteFile(filepath.Join(m.units, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// service installs a service that runs the program unit.
func (m *userManager) service(name, more string, args ...string) {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	m.install(name, fmt.Sprintf("[Service]\nType=notify\nExecStart=\"%s\" %s\nExecReload=kill -HUP $MAINPID\n"+
		"KillMode=mixed\nRestart=on-failure\n%s\n", strings.ReplaceAll(self, "%", "%%"), strings.Join(args, " "), more))
}

func (m *userManager) ctl(args ...string) string {
	m.t.Helper()
	// systemd answers only processes of its own PID namespace.
	enter := []string{"--target", strconv.Itoa(m.PID()), "--pid", "--mount"}
	if os.Geteuid() != 0 {
		enter = append(enter, "--user", "--preserve-credentials")
	}
	cmd := exec.Command("nsenter", append(append(enter, m.systemctl, "--user"), args...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+m.runtime)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("systemctl %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (m *userManager) property(unit, name string) string {
	m.t.Helper()
	return m.ctl("show", "--value", "-p", name, unit)
}

// fed waits until systemd has accepted more messages for the watchdog: two, and
// with -long those of more than WatchdogSec.
func (m *userManager) fed(unit string) {
	m.t.Helper()
	ping := func() int {
		at, err := strconv.Atoi(m.property(unit, "WatchdogTimestampMonotonic"))
		if err != nil {
			m.t.Fatal(err)
		}
		return at
	}
	times, last, first := 0, ping(), ping()
	preforktest.WaitFor(m.t, "messages for the watchdog", func() bool {
		at := ping()
		if at != last {
			times, last = times+1, at
		}
		return times >= 2 && (!testprog.Long() || at-first > int(watchdogSec*1_500_000))
	})
}

// watchdogSec is far more than a loaded machine holds up the program.
const watchdogSec = 5

// freeAddress returns a loopback address with a free port: units have no port 0.
// No other process is likely to take that port of a random address.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// A service of a real systemd lives through two upgrades, with its watchdog, and
// through `systemctl kill -s HUP`, which signals all its processes, and
// `systemctl reload`. No request fails, and systemd sees no failure.
func TestServiceOfSystemd(t *testing.T) {
	m := startSystemd(t)
	for _, c := range []struct {
		name, settings string
		start          []string // units
		reaper         bool
	}{
		// The program names another port than the unit of the socket, whose first
		// connection starts the service.
		{name: "socket", start: []string{"socket.socket"}},
		{name: "reaper", settings: "NotifyAccess=all\n", start: []string{"reaper.service"}, reaper: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.t = t
			unit, address := c.name+".service", freeAddress(t)
			args := []string{":9"}
			if c.reaper {
				args = []string{address, "reaper"}
			}
			m.install(c.name+".socket", "[Socket]\nListenStream="+address+"\n")
			m.service(unit, fmt.Sprintf("WatchdogSec=%d\n%s", watchdogSec, c.settings), args...)
			m.ctl(append([]string{"start"}, c.start...)...)
			clients := loadgen.Start(loadgen.Config{
				Network: "tcp", Address: address, KeepAlive: 4, Fresh: 2, MaxTime: 5 * time.Minute,
				Pause: func() time.Duration { return 2 * time.Millisecond },
			})
			defer clients.Stop()
			var manager string
			for upgrades := range 3 {
				if upgrades > 0 {
					m.ctl("kill", "--kill-who=main", "-s", "USR2", unit)
				}
				manager = m.Expect(`^manager (\d+) serves on ` + address + `$`)[1]
				if c.reaper {
					if m.property(unit, "MainPID") == manager {
						t.Error("the manager is the main process, not its reaper")
					}
				} else {
					preforktest.WaitFor(t, "the successor as the main process", func() bool { return m.property(unit, "MainPID") == manager })
				}
				m.fed(unit)
			}
			m.ctl("kill", "-s", "HUP", unit)
			m.Expect(`^rolled$`)
			m.ctl("reload", unit)
			m.Expect(`^rolled$`)
			if got := m.ctl("show", "--value", "-p", "ActiveState", "-p", "NRestarts", unit); got != "0\nactive" && got != "active\n0" {
				t.Errorf("state and restarts: %q", got)
			}
			result := clients.Stop()
			t.Log(result)
			if result.Failed > 0 || result.OK == 0 {
				t.Errorf("%d of %d failed: %v", result.Failed, result.Failed+result.OK, result.Errors)
			}
			if !c.reaper {
				// Otherwise KILL may follow TERM at once: the successor is not a child
				// of systemd, which has not looked at it since its parent exited.
				m.ctl("daemon-reload")
			}
			m.ctl("stop", unit, c.name+".socket")
			if got := m.property(unit, "Result"); got != "success" {
				t.Errorf("result of the service: %s", got)
			}
		})
	}
	exits := map[string]int{}
	for _, line := range m.Lines() {
		if strings.HasPrefix(line, "exit: ") {
			exits[line]++
		}
	}
	t.Log(exits)
	// systemctl also finds workers that have just been started. They are
	// replaced, and the reload goes on.
	for _, starting := range []string{"exit: crashed, SIGHUP", "exit: stopped, SIGHUP", "exit: stopped, SIGTERM"} {
		delete(exits, starting)
	}
	delete(exits, "exit: stopped, exit code 0")
	delete(exits, "exit: finished, exit code 0") // by the SIGTERM that systemd sends to all
	if len(exits) > 0 {
		t.Errorf("workers did not stop in order: %v", exits)
	}
	m.Kill()
	m.WaitGone()
}
