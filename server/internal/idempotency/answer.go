package idempotency

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// answer is what a call came to: what its handler answered, or the failure of the way
// behind it.
type answer struct {
	reply *message.Reply
	err   *errs.Error
}

// failure is the error in it, nil when it was a success.
func (a *answer) failure() *errs.Error {
	if a.err != nil {
		return a.err
	}
	return a.reply.Err
}

// size is how many bytes count: body, headers, trailers and status.
func (a *answer) size() int {
	n := 0
	if r := a.reply; r != nil {
		n += len(r.Body)
		for _, pairs := range [][]message.Pair{r.Headers, r.Trailers} {
			for i := range pairs {
				n += len(pairs[i].Key) + len(pairs[i].Value)
			}
		}
	}
	if e := a.failure(); e != nil {
		n += len(e.Message)
		for _, d := range e.Details {
			n += len(d)
		}
		for k, v := range e.Meta {
			n += len(k) + len(v)
		}
	}
	return n
}

// clone returns an answer that shares no bytes with a.
func (a *answer) clone() (*message.Reply, *errs.Error) {
	if a.err != nil {
		return nil, a.err
	}
	r := *a.reply
	r.Body = slices.Clone(r.Body)
	r.Headers, r.Trailers = clonePairs(r.Headers), clonePairs(r.Trailers)
	return &r, nil
}

func clonePairs(pairs []message.Pair) []message.Pair {
	c := slices.Clone(pairs)
	for i := range c {
		c[i].Value = slices.Clone(c[i].Value)
	}
	return c
}

// The stored form: a version, flags, then fields, each text or list behind its length as
// a varint.
const (
	answerVersion = 1

	answerFailed  = 1 << 0 // a failure follows
	answerWay     = 1 << 1 // the failure is that of the way, and there is no reply
	failRetryable = 1 << 0
)

// marshal returns the stored form.
func (a *answer) marshal() []byte {
	b := []byte{answerVersion, 0}
	if r := a.reply; r != nil && a.err == nil {
		b = append(b, byte(r.ContentType))
		b = appendText(b, r.Body)
		b = appendPairs(b, r.Headers)
		b = appendPairs(b, r.Trailers)
	} else {
		b[1] |= answerWay
	}
	e := a.failure()
	if e == nil {
		return b
	}
	b[1] |= answerFailed
	var flags byte
	if e.Retryable {
		flags |= failRetryable
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(e.GRPCCode))
	b = binary.AppendUvarint(b, uint64(max(0, e.RetryAfter)))
	for _, s := range []string{string(e.Code), e.Component, e.Operation, e.Message, string(e.Severity)} {
		b = appendText(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(e.Details)))
	for _, d := range e.Details {
		b = appendText(b, d)
	}
	b = binary.AppendUvarint(b, uint64(len(e.Meta)))
	for _, k := range slices.Sorted(maps.Keys(e.Meta)) {
		b = appendText(b, k)
		b = appendText(b, e.Meta[k])
	}
	return b
}

func appendText[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendPairs(b []byte, pairs []message.Pair) []byte {
	b = binary.AppendUvarint(b, uint64(len(pairs)))
	for i := range pairs {
		b = appendText(b, pairs[i].Key)
		b = appendText(b, pairs[i].Value)
	}
	return b
}

var errDamaged = errors.New("the stored answer is damaged, or was stored by a newer program")

// unmarshal is the reverse of marshal. What it returns shares no bytes with b.
func unmarshal(b []byte) (*answer, error) {
	r := reader{b: b}
	if r.byte() != answerVersion {
		return nil, errDamaged
	}
	flags := r.byte()
	a := &answer{}
	if flags&answerWay == 0 {
		a.reply = &message.Reply{ContentType: message.ContentType(r.byte())}
		a.reply.Body = r.text()
		a.reply.Headers, a.reply.Trailers = r.pairs(), r.pairs()
	}
	if flags&answerFailed != 0 {
		e := r.failure()
		if flags&answerWay != 0 {
			a.err = e
		} else {
			a.reply.Err = e
		}
	}
	if r.bad || len(r.b) != 0 || flags&^(answerFailed|answerWay) != 0 || flags == answerWay {
		return nil, errDamaged
	}
	return a, nil
}

// reader takes fields off a stored answer. After the first that is not there it returns
// zero values.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

// count reads the length of a list of elements that take a byte at least.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) text() []byte {
	n := r.count()
	if n == 0 {
		return nil
	}
	s := slices.Clone(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) pairs() []message.Pair {
	var pairs []message.Pair
	for range r.count() {
		p := message.Pair{Key: string(r.text()), Value: r.text()}
		if r.bad {
			return nil
		}
		pairs = append(pairs, p)
	}
	return pairs
}

func (r *reader) failure() *errs.Error {
	flags := r.byte()
	if flags&^failRetryable != 0 {
		r.fail()
	}
	e := &errs.Error{Retryable: flags&failRetryable != 0, GRPCCode: codes.Code(min(r.number(), 1<<31))}
	e.RetryAfter = time.Duration(min(r.number(), 1<<62))
	e.Code = errs.Code(r.text())
	e.Component, e.Operation, e.Message = string(r.text()), string(r.text()), string(r.text())
	e.Severity = errs.Severity(r.text())
	for range r.count() {
		d := r.text()
		if r.bad {
			return nil
		}
		e.Details = append(e.Details, d)
	}
	for range r.count() {
		k, v := string(r.text()), string(r.text())
		if r.bad {
			return nil
		}
		if e.Meta == nil {
			e.Meta = make(map[string]string)
		}
		e.Meta[k] = v
	}
	return e
}
