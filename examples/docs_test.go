package examples_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = ".."

// block is a fenced block of a document, with the comment that stands right before it.
type block struct {
	file, language, mark, text string
	line                       int
}

// blocks returns every fenced block of every document.
func blocks(t *testing.T) []block {
	t.Helper()
	var all []block
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "node_modules" || name == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".md") {
			return nil
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		all = append(all, fenced(path, string(body))...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d blocks found below %s", len(all), root)
	}
	return all
}

func fenced(file, body string) []block {
	var all []block
	var open *block
	before := ""
	for i, line := range strings.Split(body, "\n") {
		switch {
		case open == nil && strings.HasPrefix(line, "```"):
			open = &block{file: file, line: i + 1, language: strings.TrimPrefix(line, "```"), mark: strings.TrimSuffix(strings.TrimPrefix(before, "<!-- "), " -->")}
			if !strings.HasPrefix(before, "<!-- ") {
				open.mark = ""
			}
		case open != nil && line == "```":
			all = append(all, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
		before = line
	}
	return all
}

// Code in a document is part of a file that is compiled, word for word.
func TestCodeInDocumentsIsCompiled(t *testing.T) {
	t.Parallel()
	for _, b := range blocks(t) {
		if b.language != "go" {
			continue
		}
		source, ok := strings.CutPrefix(b.mark, "from ")
		if !ok {
			t.Errorf("%s:%d: a block of Go without <!-- from FILE --> before it", b.file, b.line)
			continue
		}
		body, err := os.ReadFile(filepath.Join(root, source))
		if err != nil {
			t.Errorf("%s:%d: %v", b.file, b.line, err)
			continue
		}
		if !strings.Contains(flat(string(body)), flat(b.text)) {
			t.Errorf("%s:%d: this block is not in %s as it stands:\n%s", b.file, b.line, source, b.text)
		}
	}
}

// flat takes indentation out, which depends on where code stands.
func flat(code string) string {
	lines := strings.Split(strings.TrimSpace(code), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}

var (
	command = regexp.MustCompile(`(?m)(?:^|\s|\()telford ((?:[a-z]+(?:-[a-z]+)* ?)+)((?:[^\n|#]|\\\n)*)`)
	flagUse = regexp.MustCompile(`--([a-z][a-z-]*)`)
)

// A command in a document exists, with its flags: it stands in the reference, which is
// compared with the program.
func TestCommandsInDocumentsExist(t *testing.T) {
	t.Parallel()
	body, err := os.ReadFile(filepath.Join(root, "docs/reference/cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for section := range strings.SplitSeq(string(body), "\n### telford ") {
		name, text, _ := strings.Cut(section, "\n")
		sections[name] = text
	}
	const everywhere = "--json --namespace --help --server --token --ca --data"
	checked := 0
	for _, b := range blocks(t) {
		if b.language != "sh" && b.language != "console" {
			continue
		}
		for _, m := range command.FindAllStringSubmatch(b.text, -1) {
			words := strings.Fields(m[1])
			name := words[0]
			if len(words) > 1 && sections[name+" "+words[1]] != "" {
				name += " " + words[1]
			}
			section := sections[name]
			if section == "" && name != "completion" {
				t.Errorf("%s:%d: there is no command telford %s", b.file, b.line, name)
				continue
			}
			checked++
			for _, f := range flagUse.FindAllStringSubmatch(m[2], -1) {
				if !strings.Contains(section+everywhere, "--"+f[1]) {
					t.Errorf("%s:%d: telford %s has no flag --%s", b.file, b.line, name, f[1])
				}
			}
		}
	}
	if checked < 5 {
		t.Errorf("only %d commands were found in the documents", checked)
	}
}

// Links between documents lead somewhere.
func TestLinksInDocumentsLead(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "node_modules") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".md") {
			return nil
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(body), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
