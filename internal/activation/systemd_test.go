package activation

import (
	"net"
	"path/filepath"
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
