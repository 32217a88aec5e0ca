//go:build unix

package main

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("standby", main) }

// A standby, which has loaded its model, replaces a worker that crashes.
func TestStandbyTakesOver(t *testing.T) {
	p := preforktest.Start(t, "standby", "-listen", "127.0.0.1:0", "-loads", "100ms")
	lines := p.ExpectAll(
		`^serving on (http://\S+)$`, `^standby (\d+) is ready$`, `worker ready slot=0`, `worker ready slot=1`,
	)
	url, standby := lines[0][1], lines[1][1]
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := client.Get(url + "/crash"); err == nil {
		resp.Body.Close()
		t.Fatalf("the worker did not crash: %s", resp.Status)
	}
	slot := p.Expect(`^standby ` + standby + ` fills slot ([01])$`)[1]
	p.ExpectAll(`worker ready slot=`+slot+` .*pid=`+standby, `^standby (\d+) is ready$`)
	for range 10 {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(text), "has the model loaded") {
			t.Errorf("response of a worker without its model: %s", text)
		}
	}
	p.Signal(syscall.SIGHUP)
	p.ExpectAll(`worker ready slot=0 gen=2`, `worker ready slot=1 gen=2`, `^standby \d+ is ready$`)
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
}
