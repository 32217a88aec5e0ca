package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/prefork-go/prefork/ops/client"
)

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish", GroupID: groupOther, Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		Short:     "Print a script that completes verbs, names, pools and IDs",
		ValidArgs: []string{"bash", "zsh", "fish"},
		Long: `Prints a script for the shell. It asks the managers that run for their names, pools and workers.

  bash:  source <(prefork completion bash)
  zsh:   prefork completion zsh > "${fpath[1]}/_prefork"
  fish:  prefork completion fish > ~/.config/fish/completions/prefork.fish`,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			var err error
			switch args[0] {
			case "bash":
				err = root.GenBashCompletionV2(out, true)
			case "zsh":
				err = root.GenZshCompletion(out)
			case "fish":
				err = root.GenFishCompletion(out, true)
			}
			if err != nil {
				return &exitError{code: exitFailed, text: err.Error()}
			}
			return nil
		},
	}
}

type completions = []cobra.Completion

func (a *app) completeSockets(*cobra.Command, []string, string) (completions, cobra.ShellCompDirective) {
	found, err := client.Find()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var all completions
	for _, f := range found {
		all = append(all, cobra.CompletionWithDesc(f.Name, fmt.Sprintf("pid %d", f.PID)))
	}
	return all, cobra.ShellCompDirectiveDefault // paths as well
}

// live returns the status for completion; nil if there is none.
func (a *app) live() *client.Status {
	c, err := a.dial()
	if err != nil {
		return nil
	}
	s, err := a.status(c, false)
	if err != nil {
		return nil
	}
	return s
}

func (a *app) completePools(*cobra.Command, []string, string) (completions, cobra.ShellCompDirective) {
	a.pool = ""
	var all completions
	if s := a.live(); s != nil {
		for _, p := range s.Pools {
			all = append(all, cobra.CompletionWithDesc(p.Name, fmt.Sprintf("%d of %d ready", p.Counts.Ready, p.Limits.MaxWorkers)))
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeIDs(_ *cobra.Command, have []string, _ string) (completions, cobra.ShellCompDirective) {
	given := make(map[string]bool)
	for _, id := range have {
		given[id] = true
	}
	var all completions
	if s := a.live(); s != nil {
		for _, p := range s.Pools {
			for _, w := range p.Workers {
				if id := strconv.Itoa(w.ID); !given[id] {
					all = append(all, cobra.CompletionWithDesc(id, fmt.Sprintf("%sslot %d, pid %d, %s", poolPrefix(s, p.Name), w.Slot, w.PID, w.State)))
				}
			}
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeSignal(cmd *cobra.Command, have []string, toComplete string) (completions, cobra.ShellCompDirective) {
	if len(have) > 0 {
		return a.completeIDs(cmd, have[1:], toComplete)
	}
	return completions{"HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "CONT", "TTIN", "TTOU", "WINCH"}, cobra.ShellCompDirectiveNoFileComp
}
