//go:build unix

package activation

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// If the end of the manager would end the whole service, the error suggests an
// alternative.
func TestCanReplaceProcess(t *testing.T) {
	none := func(string) string { return "" }
	systemd := func(notify string) func(string) string {
		return func(name string) string { return map[string]string{"SYSTEMD_EXEC_PID": "77", NotifyEnv: notify}[name] }
	}
	for _, c := range []struct {
		pid     int
		starter bool
		getenv  func(string) string
		want    string
	}{
		{1, false, none, "process 1"},
		{77, true, none, "start_server"},
		{77, false, systemd(""), "Type=notify"},
		{77, false, systemd("/run/systemd/notify"), ""},
		{78, false, systemd(""), ""},
	} {
		err := CanReplaceProcess(c.pid, c.starter, c.getenv)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("pid %d, by start_server %v: %v; want %q", c.pid, c.starter, err, c.want)
		}
	}
}

// systemd reads the notification in one datagram.
func TestNotifyMainPID(t *testing.T) {
	if err := NotifyMainPID(4711, ""); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	if err := NotifyMainPID(4711, path); err == nil {
		t.Error("no error for a socket that does not exist")
	}
	conn, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Skip(err)
	}
	defer conn.Close()
	if err := NotifyMainPID(4711, path); err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	n, _, err := conn.ReadFrom(buf)
	if got := string(buf[:n]); got != "MAINPID=4711\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// Readdress changes all variables that name the old process, and no others.
func TestReaddressAll(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	names := []string{ListenPIDEnv, watchdogPIDEnv, execPIDEnv}
	for _, c := range []struct{ value, want string }{{"4711", own}, {"4712", "4712"}, {"04711", "04711"}, {"", ""}} {
		for _, name := range names {
			t.Setenv(name, c.value)
		}
		t.Setenv(listenPIDFDEnv, "9")
		Readdress(4711)
		for _, name := range names {
			if got := os.Getenv(name); got != c.want {
				t.Errorf("%s=%s becomes %s, want %s", name, c.value, got, c.want)
			}
		}
		if _, ok := os.LookupEnv(listenPIDFDEnv); ok == (c.want == own) {
			t.Errorf("%s is left: %t, with LISTEN_PID=%s", listenPIDFDEnv, ok, c.want)
		}
	}
}

// A successor gets the variables that the program has removed, and keeps those
// that it has changed.
func TestRestoreNotify(t *testing.T) {
	start := NotifyVariables([]string{"A=1", "NOTIFY_SOCKET=/a", "WATCHDOG_PID=7", "WATCHDOG_USEC=9", "WATCHDOG=1"})
	got := RestoreNotify([]string{"WATCHDOG_USEC=5", "B=2"}, start)
	if want := []string{"WATCHDOG_USEC=5", "B=2", "NOTIFY_SOCKET=/a", "WATCHDOG_PID=7"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
