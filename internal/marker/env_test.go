package marker

import (
	"strings"
	"testing"
)

// A new process gets variables of this package only from own.
func TestChildEnv(t *testing.T) {
	base := []string{"SERVER_STARTER_PORT=old", "LISTEN_PID=old", "LISTEN_FDS=old", "LISTEN_FDNAMES=old", "A=old"}
	for _, name := range []string{Env, SuccessorEnv, DepthEnv, CommandEnv, ReaperEnv} {
		base = append(base, name+"=old")
	}
	for _, own := range []string{Env, SuccessorEnv} {
		env := ChildEnv(base, []string{SuccessorEnv + "=of a hook", Env + "=of a hook", "B=1"}, own+"=new")
		if got, want := strings.Join(env, " "), "A=old B=1 "+own+"=new"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
