package marker

import (
	"strconv"
	"strings"
)

// Command is the value of CommandEnv: the first step of a Command with
// Config.ListenFDs, in which the program of the manager puts its own pid into
// LISTEN_PID. Only the new process itself can do that.
type Command struct {
	Manager int
	Plan    int    // descriptor of the file with a plan of package resources; 0 for none
	Path    string // the program to execute, as seen from its root directory
}

func (c Command) String() string {
	return strconv.Itoa(c.Manager) + ":" + strconv.Itoa(c.Plan) + ":" + c.Path
}

func parseCommand(value string) (c Command, ok bool) {
	parts := strings.SplitN(value, ":", 3)
	if len(parts) < 3 {
		return c, false
	}
	manager, err1 := parseInt(parts[0], 1, 1<<31-1)
	plan, err2 := parseInt(parts[1], 0, maxFD)
	return Command{int(manager), int(plan), parts[2]}, err1 == nil && err2 == nil
}
