//go:build linux

package main

import (
	"embed"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed peers
var peerFiles embed.FS

// debian maps the commands of the peers to their packages. The script
// bench/setup.sh installs them all.
var debian = map[string]string{
	"perl": "perl", "plackup": "libplack-perl", "start_server": "libserver-starter-perl",
	"gunicorn": "gunicorn", "unicorn": "unicorn", "runsv": "runit", "s6-supervise": "s6", "wrk": "wrk",
}

// command returns the path of a peer's command.
func command(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &notInstalled{name, "run bench/setup.sh, or apt-get install " + debian[name]}
	}
	return path, nil
}

// perl returns the path of perl if the modules are installed.
func perl(modules ...string) (string, error) {
	path, err := command("perl")
	if err != nil {
		return "", err
	}
	for _, m := range modules {
		if exec.Command(path, "-M"+m, "-e", "1").Run() != nil {
			return "", &notInstalled{"Perl's " + m, "run bench/setup.sh"}
		}
	}
	return path, nil
}

// perlScript returns the command line of one of the scripts below peers.
func (r *run) perlScript(name string, modules ...string) ([]string, error) {
	path, err := perl(modules...)
	if err != nil {
		return nil, err
	}
	file, err := r.script(name)
	return []string{path, file}, err
}

// script writes one of the files below peers to the run's directory.
func (r *run) script(name string) (string, error) {
	text, err := peerFiles.ReadFile("peers/" + name)
	if err != nil {
		return "", err
	}
	return r.write(name, string(text))
}

// write creates a file in the run's directory.
func (r *run) write(name, text string) (string, error) {
	file := filepath.Join(r.dir, name)
	return file, os.WriteFile(file, []byte(text), 0o644)
}
