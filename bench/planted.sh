#!/usr/bin/env bash
# A planted effect: is a scrambled prompt style, or a wrong prior, found to be worse? bench/planted.sh [FOLDER] [--field=value]
# A model is trained with the FACS style and the EMFACS prior on clean synthetic corpora, so that its pictures and its
# texts agree, as CLIP's do. A sweep then goes on from it for 40 steps on other people: right and scrambled texts, right
# and scrambled prior, four seeds each. The prior is fixed and fused strongly and prompts have no contexts, so what is
# wrong must be unlearned. From scratch there is nothing to unlearn: see docs/search.md.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-runs/planted}
shift || true
model=(--recipe quickstart --storage="$folder"
  --model.text.style=facs --model.text.contexts=0 --model.mapping.learn=none --model.mapping.gate=0.9
  --model.mapping.seed=1 --model.frames=2 --model.width=64 --model.backbone.image_size=32
  --model.backbone.options.dims='[16,32,64,96]' --train.optim.ema=0.95 --scale.threads_per_worker=1)
people() {  # the fields of corpora of the people of this seed
  for corpus in bp4d dfew; do
    python jobs/synthesize.py "$corpus" "$folder/corpora/$1/$corpus" --spec bench/planted_corpora.json --seed "$1" >/dev/null
    echo "--data.corpora.$corpus.root=$folder/corpora/$1/$corpus" "--data.corpora.$corpus.synthetic=null"
  done
  echo --data.corpora.bp4d.validation_parts='["P2"]' --data.corpora.dfew.validation_parts='["2"]'
}
mapfile -t first < <(people 1 | tr ' ' '\n')
mapfile -t others < <(people 2 | tr ' ' '\n')
python jobs/train.py --name start "${model[@]}" "${first[@]}" --steps=2000 --validate_every=2000 --checkpoint.every=2000
exec python jobs/tune.py --name planted "${model[@]}" "${others[@]}" --init_from="$folder/start/model" \
  --method grid --repeats 4 --vary model.text.scramble=null,3 --vary model.mapping.prior=emfacs,scrambled \
  --steps=40 --validate_every=40 --checkpoint.every=40 "$@"
