package marker

import "strings"

// The variable by which systemd addresses sockets to a process.
const listenPIDEnv = "LISTEN_PID"

// ChildEnv returns the environment of a new process: base, then extra, then own.
// If a name occurs twice, the later value wins. Variables of this package come
// only from own. Variables of systemd and start_server do not come from base: the
// new process would look for this process's sockets among its own descriptors.
func ChildEnv(base, extra []string, own ...string) []string {
	env := make([]string, 0, len(base)+len(extra)+len(own))
	at := make(map[string]int, cap(env))
	add := func(list []string, drop func(name string) bool) {
		for _, kv := range list {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || strings.IndexByte(kv, 0) >= 0 || drop(name) {
				continue
			}
			if i, ok := at[name]; ok {
				env[i] = kv
				continue
			}
			at[name] = len(env)
			env = append(env, kv)
		}
	}
	add(base, func(name string) bool { return isOwn(name) || isActivation(name) })
	add(extra, isOwn)
	return append(env, own...)
}

func isOwn(name string) bool {
	switch name {
	case Env, SuccessorEnv, DepthEnv, CommandEnv, ReaperEnv:
		return true
	}
	return false
}

// isActivation reports whether systemd or start_server describes sockets in a
// variable of this name.
func isActivation(name string) bool {
	switch name {
	case listenPIDEnv, "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION":
		return true
	}
	return false
}
