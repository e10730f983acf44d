# SPDX-License-Identifier: Apache-2.0
# bash completion for warmctl and warmd
_warmctl() {
        local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command= i
        local commands="status models complete generate tokenize score explain warm trim bench doctor"
        for ((i = 1; i < COMP_CWORD; i++)); do
                case " $commands " in *" ${COMP_WORDS[i]} "*) command=${COMP_WORDS[i]} ;; esac
        done
        case $before in
        --socket | --plot) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
        --model) mapfile -t COMPREPLY < <(compgen -W "$(warmctl models --json 2>/dev/null | grep -o '"name":"[^"]*"' | cut -d'"' -f4)" -- "$word"); return ;;
        -n) return ;;
        esac
        if [[ $word == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "--socket --model --json -n --lines --ids --show --again --untyped --plot --help --version" -- "$word")
        elif [ -z "$command" ]; then
                mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word")
        else
                case $command in complete | generate | tokenize | score | explain | warm) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;; esac
        fi
}
_warmd() {
        local word=${COMP_WORDS[COMP_CWORD]}
        case ${COMP_WORDS[COMP_CWORD - 1]} in
        --model | --socket | --config) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
        --device) mapfile -t COMPREPLY < <(compgen -W "auto cpu cuda:0" -- "$word") ;;
        --gpu-memory-short) mapfile -t COMPREPLY < <(compgen -W "shrink refuse" -- "$word") ;;
        --kv-type) mapfile -t COMPREPLY < <(compgen -W "f16 bf16 f32" -- "$word") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "--model --socket --device --gpu-memory-wait --gpu-memory-short --kv-memory --kv-type --context --threads --chunk-ms --admin-group --config --check --help --version" -- "$word") ;;
        esac
}
complete -F _warmctl warmctl
complete -F _warmd warmd
