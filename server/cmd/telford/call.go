package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// maxRequest is the largest body of a call, in bytes.
const maxRequest = 16 << 20

// callFlags are what a call carries beside its body.
type callFlags struct {
	headers     []string
	timeout     time.Duration
	idempotency string
	business    string
	instance    string
	realm       string
	version     string
	contract    string
}

func (f *callFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVar(&f.headers, "header", nil, "metadata of the call, KEY=VALUE; may be repeated")
	fl.DurationVar(&f.timeout, "timeout", 0, "deadline of the call, such as 5s (default for calls: 30s)")
	fl.StringVar(&f.idempotency, "idempotency-key", "", "key under which the call is done once")
	fl.StringVar(&f.business, "business-key", "", "name by which the call is found later, such as an order number")
	fl.StringVar(&f.instance, "instance", "", "only this instance")
	fl.StringVar(&f.realm, "realm", "", "only instances of this realm; * matches any part")
	fl.StringVar(&f.version, "version", "", "only instances of this version")
	fl.StringVar(&f.contract, "contract", "", "only instances whose method has this contract, as services get shows it")
}

// header returns the HTTP headers of the call.
func (f *callFlags) header(namespace string) (http.Header, error) {
	h := http.Header{}
	for _, pair := range f.headers {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef("--header: %q is not KEY=VALUE", pair)
		}
		h.Add("Telford-Meta-"+key, value)
	}
	if f.timeout < 0 {
		return nil, usagef("--timeout: %s is negative", f.timeout)
	}
	if f.timeout > 0 {
		h.Set("Telford-Timeout", f.timeout.String())
	}
	for name, value := range map[string]string{
		"Telford-Idempotency-Key": f.idempotency, "Telford-Business-Key": f.business, "Telford-Instance": f.instance,
		"Telford-Realm": f.realm, "Telford-Version": f.version, "Telford-Contract": f.contract, "Telford-Namespace": namespace,
	} {
		if value != "" {
			h.Set(name, value)
		}
	}
	return h, nil
}

func (a *app) callCommand() *cobra.Command {
	var flags callFlags
	c := &cobra.Command{
		Use:     "call SERVICE METHOD [JSON|@FILE|-]",
		Short:   "Call a method and print its answer",
		Example: "  telford call payments charge '{\"order\":\"o1\",\"cents\":1200}'",
		Args:    args(cobra.RangeArgs(2, 3)),
		RunE: func(c *cobra.Command, given []string) error {
			resp, err := a.send(c, "/call/", given, &flags)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
			if err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			return a.raw(body)
		},
	}
	flags.add(c)
	return c
}

func (a *app) streamCommand() *cobra.Command {
	var flags callFlags
	c := &cobra.Command{
		Use:   "stream SERVICE METHOD [JSON|@FILE|-]",
		Short: "Call a streaming method and print its messages, one a line",
		Args:  args(cobra.RangeArgs(2, 3)),
		RunE: func(c *cobra.Command, given []string) error {
			resp, err := a.send(c, "/stream/", given, &flags)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			return a.printChunks(bufio.NewReaderSize(resp.Body, 64<<10))
		},
	}
	flags.add(c)
	return c
}

func (a *app) send(c *cobra.Command, route string, given []string, flags *callFlags) (*http.Response, error) {
	body, err := a.payload(given[2:])
	if err != nil {
		return nil, err
	}
	header, err := flags.header(a.global.namespace)
	if err != nil {
		return nil, err
	}
	segments := strings.Split(strings.TrimPrefix(given[1], "/"), "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	path := route + url.PathEscape(given[0]) + "/" + strings.Join(segments, "/")
	return a.client().send(c.Context(), http.MethodPost, path, body, header)
}

// payload reads the body of a call from the argument, a file or the standard input.
func (a *app) payload(given []string) ([]byte, error) {
	if len(given) == 0 {
		return []byte("{}"), nil
	}
	var body []byte
	var err error
	switch arg := given[0]; {
	case arg == "-":
		body, err = io.ReadAll(io.LimitReader(a.stdin, maxRequest+1))
	case strings.HasPrefix(arg, "@"):
		body, err = readFile(arg[1:])
	default:
		body = []byte(arg)
	}
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	if len(body) > maxRequest {
		return nil, fmt.Errorf("the body is larger than %d bytes, the most that a call carries", maxRequest)
	}
	if !json.Valid(body) {
		return nil, usagef("the body is not JSON: %s", excerpt(body))
	}
	return body, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRequest+1))
}

func excerpt(body []byte) string {
	const most = 60
	if len(body) > most {
		return string(bytes.ToValidUTF8(body[:most], nil)) + "…"
	}
	return string(bytes.ToValidUTF8(body, nil))
}

// printChunks prints the messages of a stream, or with --json its lines, until its end.
func (a *app) printChunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			end, e := a.printChunk(line)
			if e != nil || end {
				return e
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the stream broke off before its end")
		case err != nil:
			return fmt.Errorf("read the stream: %w", err)
		}
	}
}

func (a *app) printChunk(line []byte) (end bool, err error) {
	var m struct {
		Chunk json.RawMessage `json:"chunk"`
		End   bool            `json:"end"`
		Error *apiError       `json:"error"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return false, fmt.Errorf("read the stream: %w", err)
	}
	if a.global.json {
		err = a.raw(line)
	} else if m.Chunk != nil {
		err = a.raw(m.Chunk)
	}
	if err == nil && m.Error != nil {
		err = m.Error
	}
	return m.End, err
}
