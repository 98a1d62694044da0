r"""What each script does with a careless person or a bad machine, one case a line. Linux only.

    python -m benchmarks.faults.cases

makes a small data set, a run of 20 steps, its evaluation, an export and a picture, then runs
each case as a shell command in a copy of them, and prints as a table what came of it. A case is
unsound, and the exit code then 1, where

- a traceback is shown, or an error is not one line that begins with the script's name;
- the exit code is not the expected one;
- what a case must leave alone is not as it was before.

About 10 minutes on 2 cores; --only chooses the cases whose names hold a word.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import REPOSITORY, child_environment
from benchmarks.tables import markdown_table
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.base.locks import LOCK_FILE

SECONDS = 240


@dataclasses.dataclass(frozen=True)
class CasesSettings:
    """Which cases to run, and how."""

    only: str = setting('.', 'Regular expression of the names of the cases to run.')
    processes: int = setting(2, 'Cases that run at a time.', at_least=1, at_most=64)


class Case(NamedTuple):
    """A thing that a person or a machine does."""

    name: str
    command: str
    """For bash, in a folder with what `_PREPARE` made; `$P` is Python, `$R` this repository."""
    codes: tuple[int, ...] = (1,)
    """Allowed exit codes; of 1, an error of one line."""
    may_change: tuple[str, ...] = ()
    """Beginnings of the paths that may change: new files always may."""


_TRAIN = '$P $R/cifar10_train.py --data_dir=data --dataset=synthetic --batch_size=8'
_EVAL = '$P $R/cifar10_eval.py --run_once'
_PREDICT = '$P $R/cifar10_predict.py --checkpoint_dir=run'
_PLOT = '$P $R/cifar10_plot.py --train_dir=run'
_EXPORT = '$P $R/cifar10_export.py --checkpoint_dir=run'
_DATA = '$P $R/cifar10_data.py'

# The network of 42,442 weights, so that copies are small.
_PREPARE = f"""
set -e
{_DATA} --data_dir=data --dataset=synthetic --num_train=240 --num_test=60
{_TRAIN} --train_dir=run --model=small_cnn --max_steps=20 --save_checkpoint_steps=10 --max_to_keep=2
{_EVAL} --checkpoint_dir=run
{_EXPORT} --output=exported
{_DATA} extract pictures --data_dir=data --dataset=synthetic
cp "$(find pictures -name '*.png' | head -1)" picture.png
"""

# A new run of two steps.
_SHORT = f'{_TRAIN} --model=small_cnn --max_steps=2'


def _flags() -> Iterator[Case]:
    for flag in (
        '--no_such_flag=1',
        '--lr=0.1',
        '--max_steps=abc',
        '--max_steps=-1',
        '--max_steps=1e3',
        '--max_steps=99999999999999999999',
        '--max_steps=',
        '--max_steps',
        '--train_dir=',
        '--batch_size=0',
        '--learning_rate=nan',
        '--learning_rate=1e400',
        '--learning_rate=0,1',
        '--model=resnet',
        '--model=small-cnn',
        '--preset=airbnch94',
        '--optimizer=Adam',
        '--nomax_steps',
        '--use_fp16=perhaps',
        '--seed=-1',
        '--held_out=1',
        '--num_filters=a --model=airbench',
        '--gradient_scales=x',
        '--eval_data=held_out --eval_every=1',
        '--eval_every=-2',
        '--intra_op_threads=99999',
        '--flagfile=missing',
        'stray_argument',
        '--use_fp16 --use_bf16',
        '--held_out=0.5 --num_held_out=3',
        '--num_held_out=240',
        '--batch_splits=3',
        '--batch_size=1000',
        '--plateau_evaluations=1',
    ):
        yield Case(f'train {flag}', f'{_TRAIN} --train_dir=new {flag}')
    yield Case('train, help', f'{_TRAIN} --help', (0,))
    yield Case(
        'towers --num_gpus=0',
        '$P $R/cifar10_multi_gpu_train.py --data_dir=data --train_dir=new --num_gpus=0',
    )
    yield Case(
        'workers, TF_CONFIG broken',
        "TF_CONFIG='{' $P $R/cifar10_distributed_train.py --data_dir=data --train_dir=new",
    )


def _train_dirs() -> Iterator[Case]:
    for name in (
        'with space',
        '[a-z]*',
        'a,b',
        'ä ✓',
        '$(printf "x\\xff")',
        'end/',
        './run2/../r3',
    ):
        yield Case(f'--train_dir={name}', f'{_SHORT} --train_dir="{name}"', (0,))
    for name in (
        'picture.png',
        'picture.png/run',
        '/proc/run',
        '/dev/null',
        'x' * 300,
        'gs://bucket/run',
        'file:///tmp/run',
        'run/model.ckpt-20',
        'run/model.ckpt-20.index',
        'data',
        'data/synthetic-batches-bin',
        'exported',
        'run/eval',
    ):
        yield Case(f'--train_dir={name[:40]}', f'{_SHORT} --train_dir={name}')
    yield Case(
        '--train_dir=., resumed',
        f'cd run && {_SHORT} --data_dir=../data --train_dir=. --max_steps=21',
        (0,),
    )
    yield Case('--train_dir, link', f'ln -s run link && {_SHORT} --train_dir=link', (0,))
    yield Case('--train_dir, dangling link', f'ln -s gone link && {_SHORT} --train_dir=link')
    yield Case('--train_dir, link to itself', f'ln -s me me && {_SHORT} --train_dir=me')
    yield Case('run of another network', f'{_TRAIN} --train_dir=run --model=mlp')
    yield Case('run of other held-out images', f'{_TRAIN} --train_dir=run --num_held_out=8')
    yield Case('run that is finished', f'{_TRAIN} --train_dir=run --max_steps=20', (0,))
    yield Case(
        'two runs in one folder',
        f'({_TRAIN} --model=small_cnn --train_dir=new --max_steps=3000 >first 2>&1 & '
        'until grep -q "step 10," first; do sleep 0.1; done; '
        f'{_SHORT} --train_dir=new; code=$?; kill $!; wait; exit $code)',
    )


def _data_dirs() -> Iterator[Case]:
    batch = 'data/synthetic-batches-bin/data_batch_1.bin'
    change = ('data',)
    for name, damage in {
        'a file': 'rm -r data; touch data',
        'a training file gone': f'rm {batch}',
        'a training file empty': f': > {batch}',
        'a training file cut': f'truncate -s -1 {batch}',
        'a training file longer': f'echo x >> {batch}',
        'a label of 200': f'printf "\\xc8" | dd of={batch} conv=notrunc status=none',
        'a training file a folder': f'rm {batch}; mkdir {batch}',
        'a training file a pipe': f'rm {batch}; mkfifo {batch}',
        'test file gone': 'rm data/synthetic-batches-bin/test_batch.bin',
    }.items():
        yield Case(f'data: {name}', f'{damage}; {_SHORT} --train_dir=new', (1,), change)
    yield Case('data: of another name', f'{_SHORT} --train_dir=new --dataset=cifar10')
    yield Case('data: a scheme', f'{_SHORT} --train_dir=new --data_dir=s3://bucket')
    yield Case(
        'data: a name that is no UTF-8',
        f'd="$(printf "d\\xff")"; mv data "$d"; {_SHORT} --train_dir=new --data_dir="$d"',
        (0,),
        change,
    )
    yield Case(
        'data: gone in the middle of a run',
        f'({_TRAIN} --model=small_cnn --train_dir=new --max_steps=100000 >o 2>&1 & '
        'until grep -q "step 10," o; do sleep 0.1; done; rm -r data; wait $!; code=$?; '
        'tail -1 o >&2; exit $code)',
        (1,),
        change,
    )
    yield Case(
        'folder of the run gone in the middle',
        f'({_TRAIN} --model=small_cnn --train_dir=new --max_steps=100000 --save_checkpoint_secs=1 '
        '>o 2>&1 & until grep -q "step 10," o; do sleep 0.1; done; rm -r new; wait $!; code=$?; '
        'tail -1 o >&2; exit $code)',
    )
    yield Case(
        'working directory gone in the middle',
        f'(mkdir here; cd here; {_TRAIN} --data_dir=../data --model=small_cnn --train_dir=../new '
        '--max_steps=400 >../o 2>&1 & until grep -q "step 10," ../o; do sleep 0.1; done; '
        'rmdir ../here; wait $!; code=$?; tail -1 ../o >&2; exit $code)',
        (0,),
    )


def _checkpoints() -> Iterator[Case]:
    newest = 'run/model.ckpt-20'
    change = ('run',)
    resume = f'{_TRAIN} --train_dir=run --max_steps=21'
    for name, damage, codes in (
        ('newest cut', f'truncate -s 100 {newest}.data-00000-of-00001', (0,)),
        ('newest without index', f'rm {newest}.index', (0,)),
        ('all cut', 'for f in run/*.data*; do truncate -s 100 $f; done', (1,)),
        ('state file garbage', 'echo x > run/checkpoint', (0,)),
        ('state file gone', 'rm run/checkpoint', (0,)),
        ('settings garbage', 'echo x > run/settings.json', (1,)),
        ('settings a list', 'echo [] > run/settings.json', (1,)),
        ('settings gone', 'rm run/settings.json', (1,)),
        ('history garbage', 'echo x > run/history.jsonl', (1,)),
        ('history a folder', 'rm run/history.jsonl; mkdir run/history.jsonl', (1,)),
    ):
        yield Case(f'checkpoint: {name}', f'{damage}; {resume}', codes, change)
        if name != 'settings gone':
            evaluates = (0,) if 'history' in name else codes
            yield Case(
                f'evaluation: {name}', f'{damage}; {_EVAL} --checkpoint_dir=run', evaluates, change
            )
    for flags in (
        '--checkpoint_dir=missing',
        '--checkpoint_dir=picture.png',
        '--checkpoint_dir=data',
        '--checkpoint_dir=run --checkpoint=model.ckpt-7',
        '--checkpoint_dir=run --checkpoint=picture.png',
        '--checkpoint_dir=run --model=mlp',
        '--checkpoint_dir=run --eval_dir=run',
        '--checkpoint_dir=run --eval_dir=picture.png',
        '--checkpoint_dir=run --eval_data=held_out',
        '--checkpoint_dir=run --num_examples=61',
        '--checkpoint_dir=run --views=2',
        '--checkpoint_dir=run --data_dir=missing',
        '--checkpoint_dir=run --report=picture.png',
        '--checkpoint_dir=run --report=run',
    ):
        yield Case(f'evaluation {flags}', f'{_EVAL} {flags}')


def _pictures() -> Iterator[Case]:
    for name, command in {
        'nothing asked': '',
        'missing': 'missing.png',
        'a pattern without a match': "'*.jpg'",
        'a folder': 'data',
        'text named .png': 't.png',
        'empty file': 'e.png',
        'cut': 'c.png',
        'negative index': '--index=-1',
        'index beyond': '--index=60',
        'output without ending': 'picture.png --output=o',
        'output of another kind': 'picture.png --output=o.bmp',
        'output in a missing folder': 'picture.png --output=missing/o.png',
        'output a folder': 'picture.png --output=data',
    }.items():
        prepare = 'echo x > t.png; : > e.png; head -c 200 picture.png > c.png'
        yield Case(f'predict: {name}', f'{prepare}; {_PREDICT} {command}')
    yield Case('predict: many, one bad', f': > e.png; {_PREDICT} picture.png e.png picture.png')
    yield Case('predict: read no further', f'{_PREDICT} picture.png | true', (0,))
    yield Case('predict: no console', f'{_PREDICT} picture.png >&-', (0,))
    for flags in (
        '--output=c.xyz',
        '--output=missing/c.png',
        '--output=data',
        '--plot=confusions',
        '--plot=layers --model=resnet',
        '--train_dir=missing',
    ):
        yield Case(f'plot {flags}', f'{_PLOT} {flags}')
    # Its evaluations have one of their own.
    yield Case('plot: no history', f'rm run/history.jsonl; {_PLOT} --output=c.png', (0,), ('run',))
    yield Case(
        'plot over a picture, full disk',
        f'(ulimit -f 1; {_PLOT} --output=picture.png --plot=layers)',
    )


def _outputs() -> Iterator[Case]:
    for name in ('exported', 'picture.png', '.', 'run', 'data', 'missing/a', 's3://x'):
        codes = (0,) if name == 'missing/a' else (1,)
        yield Case(f'export --output={name}', f'{_EXPORT} --output={name}', codes)
    yield Case('export, a name that is no UTF-8', f'{_EXPORT} --output="$(printf "e\\xff")"', (0,))
    yield Case(
        'report, a name that is no UTF-8',
        f'{_EVAL} --checkpoint_dir=run --report="$(printf "r\\xff")"',
        (0,),
    )
    yield Case('export, full disk', f'(ulimit -f 20; {_EXPORT} --output=e2); c=$?; ls e2; exit $c')
    yield Case('evaluation, full disk', f'(ulimit -f 0; {_EVAL} --checkpoint_dir=run)')
    yield Case('report, full disk', f'(ulimit -f 20; {_EVAL} --checkpoint_dir=run --report=r)')
    yield Case('training, full disk', f'(ulimit -f 100; {_SHORT} --train_dir=new)')
    yield Case('convert, full disk', f'(ulimit -f 20; {_DATA} convert pictures --data_dir=new)')
    for name, command in {
        'nothing': 'convert --data_dir=new',
        'two folders': 'convert pictures data --data_dir=new',
        'missing': 'convert missing --data_dir=new',
        'a picture': 'convert picture.png --data_dir=new',
        'an empty folder': 'convert empty --data_dir=new',
        'one class': 'convert one --data_dir=new',
        'pictures that are none': 'convert bad --data_dir=new',
        'into itself': 'convert pictures --data_dir=pictures',
        'into its own part': 'convert pictures --data_dir=pictures/new',
        'over a run': 'convert pictures --data_dir=run',
        'over a data set': 'convert pictures --data_dir=data',
        'over a file': 'convert pictures --data_dir=picture.png',
        'no --data_dir': 'convert pictures',
        'a flag of the other use': 'convert pictures --data_dir=new --dataset=own',
        'another word': 'covnert pictures --data_dir=new',
        'extract over a file': 'extract picture.png --data_dir=data --dataset=synthetic',
        'extract over a run': 'extract run --data_dir=data --dataset=synthetic',
        'a URL that is none': '--data_dir=new --dataset=cifar10 --data_url=foo',
        'a URL that is not answered': (
            '--data_dir=new --dataset=cifar10 --data_url=http://127.0.0.1:9/x.tar.gz'
        ),
    }.items():
        prepare = (
            'mkdir -p empty one bad/a bad/b; cp -r "$(dirname "$(find pictures -name "*.png" '
            '| head -1)")" one/a; for c in a b; do for i in 1 2 3; do echo x > bad/$c/$i.png; '
            'done; done'
        )
        yield Case(f'data: {name}', f'{prepare}; {_DATA} {command}')


def _machines() -> Iterator[Case]:
    for name, before in {
        'LANG=C': 'export LANG=C LC_ALL=C',
        'ASCII output': 'export PYTHONIOENCODING=ascii',
        'no HOME': 'unset HOME',
        'TMPDIR missing': 'export TMPDIR=/missing',
        'COLUMNS=0': 'export COLUMNS=0',
        'TERM=dumb': 'export TERM=dumb',
        'MPLBACKEND of a notebook': 'export MPLBACKEND=module://matplotlib_inline.backend_inline',
        'warnings are errors': 'export PYTHONWARNINGS=error',
        'no such GPU': 'export CUDA_VISIBLE_DEVICES=99',
        'a proxy': 'export http_proxy=http://127.0.0.1:9',
        'OMP_NUM_THREADS=x': 'export OMP_NUM_THREADS=x',
        'python -O': 'P="$P -O"',
        'few open files': 'ulimit -n 64',
        'no stdin': 'exec <&-',
    }.items():
        yield Case(f'{name}: train', f'{before}; {_SHORT} --train_dir=new', (0,))
        yield Case(f'{name}: plot', f'{before}; {_PLOT} --output=c.png', (0,))
    for name, redirect in {'stdout': '>&-', 'stderr': '2>&-', 'both': '>&- 2>&-'}.items():
        yield Case(f'no {name}: train', f'{_SHORT} --train_dir=new {redirect}', (0,))
    yield Case('stdout full: train', f'{_SHORT} --train_dir=new > /dev/full', (0, 1))
    yield Case('stdout full: help', f'{_TRAIN} --help > /dev/full', (1,))
    yield Case('another folder', f'cd /; {_EVAL} --checkpoint_dir="$OLDPWD/run"', (0,))
    yield Case(
        'moved', f'mkdir m; mv run data m; {_EVAL} --checkpoint_dir=m/run', (0,), ('run', 'data')
    )
    yield Case(
        'script by a link',
        'ln -s $R/cifar10_eval.py e.py; $P e.py --run_once --checkpoint_dir=run',
        (0,),
    )
    yield Case('working directory gone', f'mkdir g; cd g; rmdir ../g; {_EVAL}')
    yield Case(
        'Ctrl-C in the first second',
        f'({_SHORT} --train_dir=new & sleep 0.4; kill -INT $!; wait $!)',
        (130, 0),
    )
    for name, code in (('INT', 0), ('TERM', 0), ('HUP', 0), ('USR1', 0)):
        yield Case(
            f'SIG{name} in training',
            f'({_TRAIN} --model=small_cnn --train_dir=new --max_steps=100000 >o 2>&1 & '
            f'until grep -q "step 10," o; do sleep 0.1; done; kill -{name} $!; wait $!)',
            (code,),
        )


def all_cases() -> list[Case]:
    groups = (_flags, _train_dirs, _data_dirs, _checkpoints, _pictures, _outputs, _machines)
    return [case for group in groups for case in group()]


# ------------------------------------------------------------------------------ running


class Outcome(NamedTuple):
    """What came of a case."""

    case: Case
    code: int
    output: str
    """Both streams."""
    problems: Sequence[str]

    def describe(self) -> str:
        """The last line of its output, shortened."""
        lines = self.output.strip().splitlines()
        return lines[-1][:90] if lines else ''


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below, by its path; locks are whose turn it is."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name != LOCK_FILE
    }


def _bash(command: str, folder: Path) -> tuple[int, str]:
    environment = {**child_environment(), 'P': sys.executable, 'R': str(REPOSITORY)}
    # As a shell that a person types in has them, and its Ctrl-C.
    for name in ('PYTHONUNBUFFERED', 'PYTHONPATH', 'MPLBACKEND'):
        environment.pop(name, None)
    with subprocess.Popen(
        ['env', '--default-signal', 'bash', '-c', f'set -m 2>/dev/null; {command}'],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            # With job control, each command has a group of its own in this session.
            subprocess.run(['pkill', '-KILL', '-s', str(process.pid)], check=False)
            output, _ = process.communicate()
            output += f'\nhung for {SECONDS} seconds'
    return process.returncode, output


def _run(case: Case, prepared: Path, before: dict[str, str]) -> Outcome:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / 'case'
        shutil.copytree(prepared, folder)
        code, output = _bash(case.command, folder)
        after = _digests(folder)
    problems = []
    if 'Traceback (most recent call last)' in output:
        problems.append('traceback')
    if code not in case.codes:
        problems.append(f'exit code {code}, not {case.codes[0]}')
    errors = re.findall(r'(?m)^\S+\.py: error: .*', output)
    if code == 1 and len(errors) != 1 and '/dev/full' not in case.command:
        problems.append(f'{len(errors)} lines of errors')
    changed = [
        path
        for path, digest in before.items()
        if after.get(path) != digest and not path.startswith(case.may_change or '\0')
    ]
    # A run that is resumed goes on in its own files, and an evaluation adds to its history.
    if code == 1 and changed:
        problems.append(f'changed {", ".join(changed[:3])}')
    return Outcome(case, code, output, problems)


def main(settings: CasesSettings) -> None:
    """Runs the cases and prints the table; raises UserError where one is unsound."""
    chosen = [case for case in all_cases() if re.search(settings.only, case.name)]
    with tempfile.TemporaryDirectory() as name:
        prepared = Path(name) / 'prepared'
        prepared.mkdir()
        code, output = _bash(_PREPARE, prepared)
        if code:
            raise UserError(f'what the cases need was not made: {output[-500:]}')
        before = _digests(prepared)
        with concurrent.futures.ThreadPoolExecutor(settings.processes) as pool:
            outcomes = []
            for outcome in pool.map(lambda case: _run(case, prepared, before), chosen):
                outcomes.append(outcome)
                if outcome.problems:
                    print(f'{outcome.case.name}: {", ".join(outcome.problems)}', flush=True)
                    print(f'    {outcome.case.command}\n{outcome.output}', flush=True)
    rows = [
        [outcome.case.name, str(outcome.code), ', '.join(outcome.problems), outcome.describe()]
        for outcome in outcomes
    ]
    print(markdown_table(['case', 'exit', 'unsound', 'last line'], rows))
    unsound = sum(bool(outcome.problems) for outcome in outcomes)
    print(f'{len(outcomes)} cases, {unsound} unsound')
    if unsound:
        raise UserError(f'{unsound} of {len(outcomes)} cases are unsound: see the table')


if __name__ == '__main__':
    run_script(main, CasesSettings)
