package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// leafMax is the longest line that is a leaf as it is.
const leafMax = 60000

type exportedLog struct {
	Origin   string `json:"origin"`
	FirstSeq int64  `json:"first_seq"`
	Size     int64  `json:"size"`
	Reason   string `json:"reason"`
}

type exportManifest struct {
	Format int               `json:"format"`
	Begin  int64             `json:"begin"`
	End    int64             `json:"end"`
	Before string            `json:"before"`
	Logs   []exportedLog     `json:"logs"`
	Files  map[string]string `json:"files"`
}

type names []string

func (n *names) String() string         { return strings.Join(*n, ",") }
func (n *names) Set(value string) error { *n = append(*n, value); return nil }

// auditCheck checks one exported folder, or the proof of one record, on the
// field's own libraries and on nothing of Sojourn's.
type auditCheck struct {
	folder   string
	keys     []string // vkeys that are believed
	cosigned []string // vkeys of witnesses that must have cosigned
	vouched  []int64  // leaves that each of them vouches for, by log and then by witness
	faults   []string
	firstBad int64
}

// runAudit tells whether a folder that `sojourn audit export` has written is
// good, and which is the first bad record if it is not.
func runAudit(arguments []string) error {
	flags, _ := newFlags("audit")
	path := flags.String("path", "", "the folder, or the file with a proof")
	after := flags.String("after", "", "a file with an older checkpoint")
	var keys names
	flags.Var(&keys, "key", "a vkey; may be repeated")
	var witnesses names
	flags.Var(&witnesses, "witness", "the vkey of a witness that must have cosigned; may be repeated")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	check := &auditCheck{folder: *path, keys: keys, cosigned: witnesses}
	status, err := os.Stat(*path)
	if err != nil {
		return err
	}
	if status.IsDir() {
		check.run(*after)
	} else {
		octets, err := os.ReadFile(*path)
		if err != nil {
			return err
		}
		if _, text, err := check.proof(octets); err != nil {
			check.fault(0, err)
		} else {
			for _, witness := range check.cosigned {
				if _, err := cosignedBy(witness, text); err != nil {
					check.fault(0, err)
				}
			}
		}
	}
	emit("audit", fields{"good": len(check.faults) == 0, "first_bad_seq": check.firstBad, "faults": check.faults,
		"vouched": check.vouched})
	return nil
}

func (c *auditCheck) fault(seq int64, err error) {
	if seq > 0 && (c.firstBad == 0 || seq < c.firstBad) {
		c.firstBad = seq
	}
	if len(c.faults) < 100 {
		c.faults = append(c.faults, err.Error())
	}
}

func (c *auditCheck) run(after string) {
	octets, err := os.ReadFile(filepath.Join(c.folder, "manifest.json"))
	if err != nil {
		c.fault(0, err)
		return
	}
	var manifest exportManifest
	if err := json.Unmarshal(octets, &manifest); err != nil {
		c.fault(0, err)
		return
	}
	if manifest.Format != 1 || len(manifest.Logs) == 0 || manifest.Begin < 1 || manifest.End < manifest.Begin {
		c.fault(0, errors.New("the manifest names nothing"))
		return
	}
	for name, digest := range manifest.Files {
		if name == "records.ndjson" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(c.folder, filepath.Clean("/"+name)))
		if sum := sha256.Sum256(content); err != nil || hex.EncodeToString(sum[:]) != digest {
			c.fault(0, fmt.Errorf("%s is not what the manifest says", name))
		}
	}
	for _, log := range manifest.Logs {
		c.follow(log, manifest)
	}
	last := manifest.Logs[len(manifest.Logs)-1]
	signed, err := c.open(filepath.Join(c.folder, "manifest.note"), last.Origin)
	sum := sha256.Sum256(octets)
	if err != nil {
		c.fault(0, fmt.Errorf("manifest: %w", err))
	} else if signed.Text != "sojourn audit export v1\n"+hex.EncodeToString(sum[:])+"\n" {
		c.fault(0, errors.New("the manifest is not what was signed"))
	}
	trees := make([]tlog.HashReader, len(manifest.Logs))
	for i, log := range manifest.Logs {
		if log.Size == 0 {
			continue
		}
		tree, err := c.tree(log)
		if err != nil {
			c.fault(0, fmt.Errorf("%s: %w", log.Origin, err))
			continue
		}
		trees[i] = tlog.TileHashReader(tree, tileFolder(filepath.Join(c.folder, logFolder(log))))
		if i == len(manifest.Logs)-1 && after != "" {
			if err := c.extends(tree, trees[i], last.Origin, after); err != nil {
				c.fault(0, err)
			}
		}
	}
	c.records(manifest, trees)
	for i, log := range manifest.Logs {
		for _, witness := range c.cosigned {
			if trees[i] == nil && log.Size > 0 {
				continue // said already
			}
			size, err := c.witnessed(witness, log, manifest, trees[i])
			if err != nil {
				c.fault(0, fmt.Errorf("%s: %w", log.Origin, err))
			}
			c.vouched = append(c.vouched, size)
		}
	}
}

// cosignedBy opens a note that has a good cosignature by a witness. A note
// that says nothing of this witness is errNotCosigned.
func cosignedBy(witness string, text []byte) (*note.Note, error) {
	verifier, err := newCosigner(witness)
	if err != nil {
		return nil, err
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if _, ok := err.(*note.UnverifiedNoteError); ok {
		return nil, errNotCosigned
	}
	return opened, err
}

var errNotCosigned = errors.New("a witness has not cosigned")

// witnessed is how many leaves of a log a witness vouches for: all that it
// has cosigned must be how the log begins, and there must be something.
func (c *auditCheck) witnessed(witness string, log exportedLog, manifest exportManifest, reader tlog.HashReader) (int64, error) {
	files := []string{}
	if log.Size > 0 {
		files = append(files, logFolder(log)+"/checkpoint")
	}
	for name := range manifest.Files {
		if strings.HasPrefix(name, logFolder(log)+"/cosigned-") {
			files = append(files, name)
		}
	}
	best, said := int64(0), false
	for _, name := range files {
		octets, err := os.ReadFile(filepath.Join(c.folder, filepath.Clean("/"+name)))
		if err != nil {
			return best, err
		}
		opened, err := cosignedBy(witness, octets)
		if err == errNotCosigned {
			continue
		}
		if err != nil {
			return best, err
		}
		head, err := treeOf(opened.Text, log.Origin)
		if err != nil {
			return best, err
		}
		if head.N == 0 {
			continue // it vouches for nothing
		}
		said = true
		if head.N > log.Size {
			return best, errors.New("a witness has cosigned more than there is")
		}
		if root, err := tlog.TreeHash(head.N, reader); err != nil {
			return best, err
		} else if root != head.Hash {
			return best, errors.New("the log does not begin with what a witness has cosigned")
		}
		best = max(best, head.N)
	}
	if !said {
		return best, errNotCosigned
	}
	return best, nil
}

func logFolder(log exportedLog) string {
	return "logs/" + log.Origin[strings.LastIndex(log.Origin, "/")+1:]
}

// verifiers are those of the keys that are believed of a log: the signature,
// and the cosignature that has the time.
func (c *auditCheck) verifiers(origin string) (note.Verifiers, error) {
	var all []note.Verifier
	for _, key := range c.keys {
		verifier, err := note.NewVerifier(key)
		if err != nil {
			return nil, err
		}
		if verifier.Name() != origin {
			continue
		}
		timed, err := newCosigner(key)
		if err != nil {
			return nil, err
		}
		all = append(all, verifier, timed)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no key of %s was given", origin)
	}
	return note.VerifierList(all...), nil
}

func (c *auditCheck) open(file, origin string) (*note.Note, error) {
	octets, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return c.verified(octets, origin, false)
}

// verified opens a note that a believed key has signed. With timed it must
// have that key's cosignature, too.
func (c *auditCheck) verified(octets []byte, origin string, timed bool) (*note.Note, error) {
	verifiers, err := c.verifiers(origin)
	if err != nil {
		return nil, err
	}
	opened, err := note.Open(octets, verifiers)
	if err != nil {
		return nil, err
	}
	plain, times := 0, 0
	for _, each := range opened.Sigs {
		verifier, err := verifiers.Verifier(each.Name, each.Hash)
		if err != nil {
			return nil, err
		}
		if _, ok := verifier.(*cosigner); ok {
			times++
		} else {
			plain++
		}
	}
	if plain == 0 || (timed && times == 0) {
		return nil, errors.New("a signature is missing")
	}
	return opened, nil
}

// follow believes the keys that followed on those that were given.
func (c *auditCheck) follow(log exportedLog, manifest exportManifest) {
	var rotations []string
	for name := range manifest.Files {
		if strings.HasPrefix(name, logFolder(log)+"/rotation-") {
			rotations = append(rotations, name)
		}
	}
	sort.Strings(rotations)
	for _, name := range rotations {
		octets, err := os.ReadFile(filepath.Join(c.folder, name))
		if err != nil {
			continue
		}
		line, text, err := c.proof(octets)
		if err != nil {
			continue
		}
		var record struct {
			Event  string         `json:"event"`
			Fields map[string]any `json:"fields"`
		}
		if json.Unmarshal(line, &record) != nil || record.Event != "audit_key_rotated" {
			continue
		}
		before, _ := record.Fields["vkey_before"].(string)
		key, _ := record.Fields["vkey"].(string)
		verifier, err := note.NewVerifier(key)
		if err != nil || verifier.Name() != log.Origin || !c.believes(before) {
			continue
		}
		if _, err := note.Open(text, note.VerifierList(verifier)); err == nil {
			c.keys = append(c.keys, key)
		}
	}
}

func (c *auditCheck) believes(key string) bool {
	for _, each := range c.keys {
		if each == key {
			return true
		}
	}
	return false
}

// proof checks a tlog-proof and returns its record and the note that ends it.
func (c *auditCheck) proof(octets []byte) ([]byte, []byte, error) {
	head, text, ok := bytes.Cut(octets, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !ok || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" ||
		!strings.HasPrefix(lines[1], "extra ") || !strings.HasPrefix(lines[2], "index ") {
		return nil, nil, errors.New("no proof")
	}
	record, err := base64.StdEncoding.Strict().DecodeString(lines[1][6:])
	if err != nil {
		return nil, nil, err
	}
	index, err := strconv.ParseUint(lines[2][6:], 10, 63)
	if err != nil || strconv.FormatUint(index, 10) != lines[2][6:] {
		return nil, nil, errors.New("no index")
	}
	var path [][]byte
	for _, line := range lines[3:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil {
			return nil, nil, err
		}
		path = append(path, hash)
	}
	origin, _, _ := strings.Cut(string(text), "\n")
	opened, err := c.verified(text, origin, true)
	if err != nil {
		return nil, nil, err
	}
	tree, err := treeOf(opened.Text, origin)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := leafOf(record)
	if err != nil {
		return nil, nil, err
	}
	hash := rfc6962.DefaultHasher.HashLeaf(leaf)
	return record, text, proof.VerifyInclusion(rfc6962.DefaultHasher, index, uint64(tree.N), hash, path, tree.Hash[:])
}

// treeOf reads a checkpoint's text: an origin, a size and a root, and no more.
func treeOf(text, origin string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] != origin || lines[3] != "" {
		return tlog.Tree{}, errors.New("no checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != lines[1] || size < 0 {
		return tlog.Tree{}, errors.New("no size")
	}
	hash, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, err
}

// tree opens the checkpoint of a log and holds it against its tiles: each of
// those that are there must be the one that was signed.
func (c *auditCheck) tree(log exportedLog) (tlog.Tree, error) {
	folder := filepath.Join(c.folder, logFolder(log))
	octets, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := c.verified(octets, log.Origin, true)
	if err != nil {
		return tlog.Tree{}, err
	}
	tree, err := treeOf(opened.Text, log.Origin)
	if err != nil {
		return tree, err
	}
	if tree.N != log.Size {
		return tree, errors.New("the checkpoint is not the one that the manifest names")
	}
	reader := tlog.TileHashReader(tree, tileFolder(folder))
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return tree, err
	}
	if root != tree.Hash {
		return tree, errors.New("the tree is not the one that was signed")
	}
	return tree, c.tiles(log, tree, reader, folder)
}

// tiles reads the last hash of each tile that is there, which has the whole
// tile compared with what was signed.
func (c *auditCheck) tiles(log exportedLog, tree tlog.Tree, reader tlog.HashReader, folder string) error {
	for _, tile := range tlog.NewTiles(8, 0, tree.N) {
		if _, err := os.Stat(tilePath(folder, tile)); err != nil {
			if tile.L > 0 {
				return err
			}
			continue // what is needed of these is asked for by the records
		}
		index := tlog.StoredHashIndex(8*tile.L, tile.N<<8+int64(tile.W)-1)
		if _, err := reader.ReadHashes([]int64{index}); err != nil {
			seq := int64(0)
			if tile.L == 0 {
				seq = log.FirstSeq + tile.N<<8
			}
			c.fault(seq, err)
		}
	}
	return nil
}

func (c *auditCheck) extends(tree tlog.Tree, reader tlog.HashReader, origin, after string) error {
	octets, err := os.ReadFile(after)
	if err != nil {
		return err
	}
	opened, err := c.verified(octets, origin, false)
	if err != nil {
		return err
	}
	older, err := treeOf(opened.Text, origin)
	if err != nil {
		return err
	}
	if older.N > tree.N || older.N == 0 {
		return errors.New("the log is shorter than the older checkpoint")
	}
	if older.N == tree.N && older.Hash != tree.Hash {
		return errors.New("the log does not begin with the older one")
	}
	if older.N == tree.N {
		return nil
	}
	found, err := tlog.ProveTree(tree.N, older.N, reader)
	if err != nil {
		return err
	}
	path := make([][]byte, len(found))
	for i := range found {
		path[i] = found[i][:]
	}
	hasher := rfc6962.DefaultHasher
	return proof.VerifyConsistency(hasher, uint64(older.N), uint64(tree.N), path, older.Hash[:], tree.Hash[:])
}

// records walks along the lines, a tile's worth at a time.
func (c *auditCheck) records(manifest exportManifest, trees []tlog.HashReader) {
	file, err := os.Open(filepath.Join(c.folder, "records.ndjson"))
	if err != nil {
		c.fault(0, err)
		return
	}
	defer file.Close()
	digest := sha256.New()
	lines := bufio.NewReaderSize(io.TeeReader(file, digest), 1<<20)
	seq, before := manifest.Begin, manifest.Before
	hashes := map[int][]tlog.Hash{}
	indexes := map[int][]int64{}
	flush := func(i int) {
		found, err := trees[i].ReadHashes(indexes[i])
		for at, index := range indexes[i] {
			_, leaf := tlog.SplitStoredHashIndex(index)
			if err != nil {
				c.fault(manifest.Logs[i].FirstSeq+leaf, err)
			} else if found[at] != hashes[i][at] {
				c.fault(manifest.Logs[i].FirstSeq+leaf, errors.New("a record is not the one that was signed"))
			}
		}
		hashes[i], indexes[i] = hashes[i][:0], indexes[i][:0]
	}
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		record, ok := recordOf(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil || !ok {
			c.fault(seq, errors.New("a line is no record"))
			seq, before = seq+1, ""
			if err != nil {
				break
			}
			continue
		}
		if record.seq != seq {
			c.fault(seq, errors.New("a record is missing"))
		} else if before != "" && record.chained(before) != record.digest {
			c.fault(seq, errors.New("a record does not follow on the one before it"))
		}
		if record.seq < manifest.Begin || record.seq > manifest.End {
			c.fault(record.seq, errors.New("a record is beyond the manifest"))
			continue
		}
		seq, before = record.seq+1, record.digest
		leaf, err := leafOf(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			c.fault(record.seq, err)
			continue
		}
		in := -1
		for i, log := range manifest.Logs {
			if log.FirstSeq <= record.seq && record.seq < log.FirstSeq+log.Size {
				in = i
				break
			}
		}
		if in < 0 || trees[in] == nil {
			c.fault(record.seq, errors.New("a record is in no log"))
			continue
		}
		hashes[in] = append(hashes[in], tlog.RecordHash(leaf))
		indexes[in] = append(indexes[in], tlog.StoredHashIndex(0, record.seq-manifest.Logs[in].FirstSeq))
		if len(indexes[in]) == 1024 {
			flush(in)
		}
	}
	for i := range indexes {
		if len(indexes[i]) > 0 {
			flush(i)
		}
	}
	if seq <= manifest.End {
		c.fault(seq, errors.New("records are missing at the end"))
	}
	if hex.EncodeToString(digest.Sum(nil)) != manifest.Files["records.ndjson"] {
		c.fault(0, errors.New("records.ndjson is not what the manifest says"))
	}
}

type auditRecord struct {
	seq                  int64
	atMs, event, seqText string
	fields               []byte
	digest               string
}

// recordOf takes a line apart, whose members stand in one order and without spaces.
func recordOf(line []byte) (auditRecord, bool) {
	var record auditRecord
	rest, ok := bytes.CutPrefix(line, []byte(`{"at_ms":`))
	at, rest, more := bytes.Cut(rest, []byte(`,"digest":"`))
	digest, rest, more2 := bytes.Cut(rest, []byte(`","event":"`))
	event, rest, more3 := bytes.Cut(rest, []byte(`","fields":{`))
	end := bytes.LastIndex(rest, []byte(`},"seq":`))
	if !ok || !more || !more2 || !more3 || end < 0 || !bytes.HasSuffix(rest, []byte("}")) || len(digest) != 64 {
		return record, false
	}
	seq := string(rest[end+len(`},"seq":`) : len(rest)-1])
	number, err := strconv.ParseInt(seq, 10, 64)
	moment, err2 := strconv.ParseInt(string(at), 10, 64)
	if err != nil || err2 != nil || strconv.FormatInt(number, 10) != seq || strconv.FormatInt(moment, 10) != string(at) {
		return record, false
	}
	body := make([]byte, 0, end+2)
	body = append(append(append(body, '{'), rest[:end]...), '}')
	return auditRecord{number, string(at), string(event), seq, body, string(digest)}, number > 0
}

func (r auditRecord) chained(before string) string {
	hash := sha256.New()
	for i, part := range [][]byte{[]byte(before), []byte(r.seqText), []byte(r.atMs), []byte(r.event), r.fields} {
		if i > 0 {
			hash.Write([]byte("\n"))
		}
		hash.Write(part)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// leafOf is the line, or if that is too long the line with a digest for its fields.
func leafOf(line []byte) ([]byte, error) {
	if len(line) <= leafMax {
		return line, nil
	}
	record, ok := recordOf(line)
	if !ok {
		return nil, errors.New("a line is no record")
	}
	sum := sha256.Sum256(record.fields)
	return fmt.Appendf(nil, `{"at_ms":%s,"digest":"%s","event":"%s","fields":{"fields_bytes":%d,"fields_sha256":"%x"},"seq":%s}`,
		record.atMs, record.digest, record.event, len(record.fields), sum, record.seqText), nil
}

// tileFolder is a log's folder as C2SP's tlog-tiles lays it out.
type tileFolder string

func tilePath(folder string, tile tlog.Tile) string {
	return filepath.Join(folder, "tile", strings.TrimPrefix(tile.Path(), "tile/8/"))
}

func (f tileFolder) Height() int { return 8 }

func (f tileFolder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	read := make([][]byte, len(tiles))
	for i, tile := range tiles {
		octets, err := os.ReadFile(tilePath(string(f), tile))
		if err != nil {
			return nil, err
		}
		read[i] = octets
	}
	return read, nil
}

func (f tileFolder) SaveTiles([]tlog.Tile, [][]byte) {}

// cosigner verifies a key's timestamped cosignatures (C2SP tlog-cosignature).
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) (*cosigner, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	_, encoded, _ := strings.Cut(rest, "+")
	octets, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(octets) != 33 {
		return nil, errors.New("no Ed25519 key")
	}
	sum := sha256.Sum256(append([]byte(name+"\n\x04"), octets[1:]...))
	return &cosigner{name, binary.BigEndian.Uint32(sum[:4]), octets[1:]}, nil
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }
func (c *cosigner) Verify(message, signature []byte) bool {
	if len(signature) != 72 {
		return false
	}
	at := binary.BigEndian.Uint64(signature[:8])
	return ed25519.Verify(c.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, message), signature[8:])
}
