package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

const configPath = "/api/v1/config"

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Read and change the configuration of services"}
	c.AddCommand(
		a.configList(), a.configGet(), a.configSet(), a.configRemove(),
		a.configHistory(), a.configDiff(), a.configRollback(), a.configWatch(),
	)
	return c
}

func (a *app) configList() *cobra.Command {
	var page pageFlags
	c := &cobra.Command{
		Use:     "list [PREFIX]",
		Short:   "List the values whose ids begin with PREFIX, or all",
		Example: "  telford config list /production/",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			query := url.Values{}
			set(query, "namespace", a.global.namespace)
			set(query, "prefix", strings.Join(given, ""))
			t := newTable("ID", "REVISION", "KIND", "BYTES", "AUTHOR", "CHANGED")
			err := a.pages(c.Context(), configPath, query, page, func(body []byte) (string, error) {
				list := &adminv1.ListConfigResponse{}
				if err := decode(body, list); err != nil {
					return "", err
				}
				for _, v := range list.GetItems() {
					t.row(v.GetId(), digits(v.GetRevision()), kindOf(v), strconv.Itoa(len(v.GetValue())), v.GetAuthor(), when(v.GetUpdatedAt()))
				}
				return list.GetNextPageToken(), nil
			})
			if err != nil || a.global.json {
				return err
			}
			return a.print(t)
		},
	}
	page.add(c)
	return c
}

func (a *app) configGet() *cobra.Command {
	var revision int64
	var raw bool
	c := &cobra.Command{
		Use:   "get ID",
		Short: "Print a value, as it is or as it was",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			query := url.Values{"id": given}
			set(query, "namespace", a.global.namespace)
			if revision != 0 {
				query.Set("revision", digits(revision))
			}
			body, err := a.client().get(c.Context(), configPath+"/value", query)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			r := &adminv1.ConfigRevision{}
			if err := decode(body, r); err != nil {
				return err
			}
			if r.GetRemoved() {
				return fmt.Errorf("revision %d removed the value %q", revision, given[0])
			}
			text := r.GetValue().GetValue()
			if !raw && !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			_, err = io.WriteString(a.stdout, text)
			return err
		},
	}
	c.Flags().Int64Var(&revision, "revision", 0, "a revision of the value, as history shows them (default: the last)")
	c.Flags().BoolVar(&raw, "raw", false, "print the bytes of the value and nothing else, not even a newline at the end")
	return c
}

func (a *app) configSet() *cobra.Command {
	var file string
	var document bool
	var cond ifRevision
	c := &cobra.Command{
		Use:   "set ID VALUE | set ID --file FILE",
		Short: "Set a value",
		Long: "Set a value: text of at most 1 MiB. Without --if-revision it is set whatever it was; with it, only\n" +
			"if it has that revision, 0 meaning that there is none yet, and nothing is lost that another wrote.",
		Example: "  telford config set /production/cassandra/seeds 10.0.0.1,10.0.0.2\n" +
			"  telford config set limits --file limits.json --document --if-revision 12",
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, given []string) error {
			text, err := a.valueOf(given, file, c)
			if err != nil {
				return err
			}
			in := cond.body(c, map[string]any{"namespace": a.global.namespace, "id": given[0], "value": text, "json": document})
			body, err := a.client().post(c.Context(), configPath+"/value", in)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			r := &adminv1.SetConfigResponse{}
			if err := decode(body, r); err != nil {
				return err
			}
			if !r.GetChanged() {
				_, err = fmt.Fprintf(a.stdout, "%s is that already, with revision %d\n", given[0], r.GetValue().GetRevision())
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s set, revision %d\n", given[0], r.GetValue().GetRevision())
			return err
		},
	}
	c.Flags().StringVar(&file, "file", "", "file with the value; - for standard input")
	c.Flags().BoolVar(&document, "document", false, "the value is a JSON document, and is refused if it is none")
	cond.add(c, "the revision that the value must have; 0: there must be none")
	return c
}

// valueOf is the value of a command line: its second argument, or what a file has.
func (a *app) valueOf(given []string, file string, c *cobra.Command) (string, error) {
	if (file == "") == (len(given) == 1) {
		return "", usagef("give the value, or --file with a file that has it\nUsage: %s", c.UseLine())
	}
	var text string
	if file == "" {
		text = given[1]
	} else {
		from := a.stdin
		if file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return "", err
			}
			defer f.Close()
			from = f
		}
		const most = 1 << 20
		b, err := io.ReadAll(io.LimitReader(from, most+1))
		if err != nil {
			return "", fmt.Errorf("read the value: %w", err)
		}
		if len(b) > most {
			return "", fmt.Errorf("%s has more than %d bytes, which is the most that a value may have; keep it where files are kept, and set its address here", file, most)
		}
		text = string(b)
	}
	if !utf8.ValidString(text) {
		return "", errors.New("the value is not text in UTF-8; set binary data as base64, or convert the text")
	}
	return text, nil
}

// ifRevision is the flag that says for which revision a change was made.
type ifRevision struct{ revision int64 }

func (f *ifRevision) add(c *cobra.Command, help string) {
	c.Flags().Int64Var(&f.revision, "if-revision", 0, help+" (default: whatever it has)")
}

func (f *ifRevision) body(c *cobra.Command, in map[string]any) map[string]any {
	if c.Flags().Changed("if-revision") {
		in["if_revision"] = digits(f.revision)
	}
	return in
}

func (a *app) configRemove() *cobra.Command {
	var cond ifRevision
	c := &cobra.Command{
		Use:   "rm ID",
		Short: "Remove a value; its history stays, and rollback brings it back",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			body, err := a.client().post(c.Context(), configPath+"/value:remove", cond.body(c, map[string]any{"namespace": a.global.namespace, "id": given[0]}))
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			v := &adminv1.ConfigValue{}
			if err := decode(body, v); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s removed; it comes back with: telford config rollback %s %d\n", given[0], given[0], v.GetRevision())
			return err
		},
	}
	cond.add(c, "the revision that the value must have")
	return c
}

func kindOf(v *adminv1.ConfigValue) string {
	if v.GetJson() {
		return "json"
	}
	return "string"
}

func digits(n int64) string { return strconv.FormatInt(n, 10) }

// oneLine is a value for a line: quoted, and not long.
func oneLine(v *adminv1.ConfigValue) string {
	const most = 60
	text := []rune(v.GetValue())
	more := ""
	if len(text) > most {
		text, more = text[:most], fmt.Sprintf("… (%d bytes)", len(v.GetValue()))
	}
	quoted, err := json.Marshal(string(text))
	if err != nil {
		return more
	}
	return string(quoted) + more
}
